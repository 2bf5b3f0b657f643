"""Parts of a policy's page that format 1.1 added: further shapes, conditions, adapters, target, evaluations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budc.cli.output.summary import report_table
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.schema.policy import FurtherShape, PolicyDocument, Shape


def shapes(document: PolicyDocument) -> list[tuple[str, str]]:
    """Return the shapes that the policy was made for; a network has none."""
    if document.shape is None:
        return []
    lines = [f"{_size(document.shape)}, {document.shape.dtype}"]
    for further in document.further_shapes:
        own = {"sigmas": further.sigmas, "predictors": further.branches}
        names = " and ".join(name for name, value in own.items() if value)
        lines.append(f"{_size(further)}{f', {names} of its own' if names else ''}")
    return [("shape", printable(lines[0])), *(("further shape", printable(line)) for line in lines[1:])]


def network(document: PolicyDocument) -> list[tuple[str, str]]:
    """Return how a network without a pipeline is run: its latents, and each denoiser's blocks and guidance."""
    pairs = []
    if document.model.latents:
        pairs.append(("latents", " x ".join(map(str, document.model.latents))))
    for denoiser in document.model.denoisers:
        if denoiser.blocks is not None:
            pairs.append((f"blocks of {denoiser.name}", denoiser.blocks))
        if denoiser.guidance:
            weights = ", ".join(f"{item.branch} {item.weight:g}" for item in denoiser.guidance)
            pairs.append((f"weights of {denoiser.name}", weights))
    return [(printable(name), printable(text)) for name, text in pairs]


def conditions(document: PolicyDocument) -> list[tuple[str, str]]:
    """Return what the samples of the calibration were made from, beside their prompts."""
    pairs = [
        (printable(denoiser.name), f"quantised by {printable(denoiser.quantization.kind)}")
        for denoiser in document.model.denoisers
        if denoiser.quantization is not None
    ]
    negative = document.sampler.negative_prompt
    if negative is not None:
        text = "varied from prompt to prompt; not checked" if negative.text is None else repr(negative.text)
        pairs.append(("negative prompt", printable(text)))
    for image in document.images:
        size = f", {image.width} x {image.height}" if image.height else ""
        pairs.append(("image", f"{image.role}{size}"))
    for adapter in document.model.adapters.scaled:
        into = adapter.denoiser or "every denoiser"
        text = f"{adapter.name} at scale {adapter.scale:g} in {into}, sha256 {adapter.file}"
        pairs.append(("adapter", printable(text)))
    return pairs


def target(document: PolicyDocument) -> list[tuple[str, str]]:
    """Return the engine that the policy was made for, and the evaluations that its figures are from."""
    pairs = []
    if document.target is not None:
        engine = document.target
        settings = "".join(f", {name} {value}" for name, value in sorted(engine.settings.items()))
        version = f" {engine.version}" if engine.version else ""
        config = f"\nconfiguration {engine.config_digest}" if engine.config_digest else ""
        pairs.append(
            ("target", "\n".join(map(printable, f"{engine.name}{version}{settings}{config}".split("\n"))))
        )
    for metric in document.quality.metrics:
        if metric.evaluation is not None:
            pairs.append((f"{printable(metric.name)} from", f"evaluation {metric.evaluation}"))
    return pairs


def further_quality(document: PolicyDocument) -> list[str]:
    """Return the held-out table of every further shape."""
    return [
        f"{_size(shape)}, {shape.quality.held_out.size} held-out prompts\n\n"
        f"{report_table(shape.quality, document.budget.nfe)}"
        for shape in document.further_shapes
    ]


def _size(shape: Shape | FurtherShape) -> str:
    frames = f" x {shape.frames} frames" if shape.frames > 1 else ""
    return f"{shape.width} x {shape.height}{frames}"
