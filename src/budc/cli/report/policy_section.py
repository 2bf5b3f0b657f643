"""What a page says of one policy: verdict, mask, cost, identity, and what it is bound to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from budc.cli.output.loop_speed import first_speed
from budc.cli.output.summary import UNSIGNED, beaten, budget, choices, claimed_signers, cost, measured_on
from budc.cli.output.verdict import verdict
from budc.cli.report.comparisons import model_name, size_of
from budc.cli.report.figures import Figure
from budc.cli.report.frames import FramesSection, frames_section
from budc.cli.report.mask_chart import computed_steps, is_plain, mask_figure
from budc.schema.claimed_evaluation import doubt

if TYPE_CHECKING:
    from budc.cli.report.sources import Source
    from budc.schema.policy import PolicyDocument

Pair = tuple[str, str]


@dataclass(frozen=True)
class PolicySection:
    """One policy."""

    key: str
    name: str
    verdict: str
    warning: str
    """Where as many plain steps are better; empty where they are not."""
    verified: bool
    signed: str
    frames: Sequence[FramesSection]
    """One for each setting of which frames were kept."""
    no_frames: str
    """Which are not there although an evaluation kept them, and why; else empty."""
    mask: Figure
    steps: Sequence[Pair]
    """For each group of branches its computed steps, and whether it reuses plainly."""
    cost: Sequence[Pair]
    identity: Sequence[Pair]
    binding: Sequence[Pair]
    files: Sequence[Pair]
    """Variant and path, and the file's sha256."""
    unverified: Sequence[Pair]
    """The evaluations that are not verified, and why."""


def policy_section(source: Source, key: str) -> PolicySection:
    """Return what the page says of a policy; `key` is unique on the page."""
    document = source.document
    return PolicySection(
        key=key,
        name=document.name,
        verdict=verdict(document, speed=first_speed(source.evaluations)),
        warning=beaten(document),
        verified=bool(source.signers),
        signed=_signed(source),
        frames=[
            frames_section(frames, f"{key}-frames" + (f"-{number}" if number > 1 else ""))
            for number, frames in enumerate(source.frames, start=1)
        ],
        no_frames=source.no_frames,
        mask=mask_figure(document, f"{key}-mask"),
        steps=[
            (
                ", ".join(branch.names),
                computed_steps(branch)
                + ("; plain reuse of the newest between them" if is_plain(branch) else ""),
            )
            for branch in document.policy.branches
        ],
        cost=_cost(document),
        identity=_identity(source),
        binding=_binding(document),
        files=[
            (f"{variant.name}: {path}", digest)
            for variant in document.model.variants
            for path, digest in variant.files.items()
        ],
        unverified=[
            (path.name, why)
            for path, attestation in source.evaluations.items()
            if (why := doubt(attestation))
        ],
    )


def _signed(source: Source) -> str:
    if source.signers:
        return f"verified: signed by {', '.join(source.signers)}"
    if not source.artifact.signed:
        return f"not verified: {UNSIGNED}"
    return f"not verified: {source.doubt} (the file names {claimed_signers(source.artifact)})"


def _cost(document: PolicyDocument) -> list[Pair]:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(document.search.versions.items()))
    return [
        ("search", cost(document)),
        *choices(document),
        ("report", measured_on(document)),
        ("versions", versions),
    ]


def _identity(source: Source) -> list[Pair]:
    document = source.document
    end = document.not_after or "no end"
    pairs = [
        ("file", source.path.name),
        ("policy", source.artifact.policy_id),
        ("revision", f"{document.revision}, issued {document.issued_at}, until {end}"),
        ("budget", budget(document)),
        ("format", document.schema_version),
    ]
    if document.derived_from is not None:
        pairs.append(("derived from", document.derived_from))
    return pairs + [(f"note {key}", text) for key, text in sorted(document.annotations.items())]


def _binding(document: PolicyDocument) -> list[Pair]:
    model, sampler, shape = document.model, document.sampler, document.shape
    pairs = [
        ("model", f"{model_name(document)} ({model.pipeline_class or model.kind}, family {model.family})")
    ]
    pairs += [(f"weights of {denoiser.name}", denoiser.tensor_root) for denoiser in model.denoisers]
    pairs.append(("sampler", f"{sampler.scheduler}, {sampler.steps} steps, settings {sampler.config_digest}"))
    pairs.append(("guidance", f"{sampler.guidance:g} ({sampler.guidance_rule})"))
    pairs += [
        (f"from step {expert.first_step}", f"{expert.denoiser}, guidance {expert.guidance:g}")
        for expert in sampler.experts
    ]
    if sampler.negative_prompt is not None:
        negative = sampler.negative_prompt
        pairs.append(("negative prompt", negative.text if negative.text is not None else "varied"))
    if shape is not None:
        pairs.append(("output", f"{size_of(shape).removeprefix(', ')}, {shape.dtype}"))
    pairs += [
        ("further shape", f"{other.height} × {other.width}, frames {other.frames}")
        for other in document.further_shapes
    ]
    pairs += [("starts from", image.role) for image in document.images]
    if document.target is not None:
        pairs.append(("made for", f"{document.target.name} {document.target.version or ''}".strip()))
    pairs.append(("adapters", _adapters(document)))
    return pairs


def _adapters(document: PolicyDocument) -> str:
    rule = document.model.adapters
    scaled = [f"{adapter.name} at {adapter.scale:g}" for adapter in rule.scaled]
    return ", ".join([rule.rule, *scaled, *rule.digests])
