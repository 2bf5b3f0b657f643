"""Export a model folder to graphs: `budc export onnx`.

    exported = export_onnx(load_profile("wan2.1-nano"), weights, Path("nano-onnx"), "float32")

Every graph is checked by `onnx.checker` and run beside the module that it came from, before the folder appears.
`budc.runtimes.exported.manifest` says what the folder holds.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec
import onnxruntime
import torch

from budc.compiler.export.atomic_folder import atomic_folder, check_new_folder
from budc.compiler.export.components import PipelineComponents, load_components
from budc.compiler.export.denoiser import denoiser_sources
from budc.compiler.export.graph_files import write_graphs
from budc.compiler.export.graphs import OPSET
from budc.compiler.export.parity import check_graph, check_graph_parity
from budc.compiler.export.sources import EXAMPLES, GRAPH_FILES, GraphSource, files_of
from budc.compiler.models.folder import SCHEDULER_CONFIG
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.models.supported import check_exportable
from budc.policies.profile import ModelProfile, read_prompts
from budc.progress import Bar, progress, stage
from budc.runtimes.exported.graphs import check_graphs
from budc.runtimes.exported.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Manifest,
    OutputShape,
    encode_manifest,
)
from budc.runtimes.exported.signatures import SECOND, GraphName
from budc.schema.digests import file_digests
from budc.schema.files import write_atomic
from budc.schema.printable import printable

_PACKAGES = ("budc", "torch", "diffusers", "transformers", "onnx", "onnxscript")
_SEED = 0


@dataclass(frozen=True)
class Exported:
    """What an export wrote, and the largest relative difference of each graph from its module."""

    folder: Path
    manifest: Manifest
    differences: dict[GraphName, float]


def export_onnx(
    profile: ModelProfile, weights: Path, out: Path, dtype: Literal["float32", "float16"]
) -> Exported:
    """Export the model in `weights` to the folder `out`, which must not exist.

    `dtype` is the type of denoiser and text encoders; the VAE stays in float32. What a killed export of the same
    name left behind is removed.

    Raises:
        OutputError: `out` exists or cannot be written.
        UnsupportedModel: a model of this kind cannot be exported.
        ParityMismatch: a graph does not compute what its module does.
        ModelError: see `budc.compiler.models.model.load_model`.
    """
    check_exportable(profile, "export")
    check_new_folder(out)
    stage("load", printable(profile.title))
    model = load_model(msgspec.structs.replace(profile, dtype=dtype), weights, torch.device("cpu"))
    components = load_components(weights, profile, getattr(torch, dtype))
    graphs = len(GRAPH_FILES) + len(SECOND) * (len(profile.denoisers) - 1)
    with progress("export", 1 + 2 * graphs) as bar, atomic_folder(out) as folder:
        manifest, differences = _write(model, components, folder, dtype, bar)
    return Exported(out, manifest, differences)


def _write(
    model: LoadedModel,
    components: PipelineComponents,
    folder: Path,
    dtype: Literal["float32", "float16"],
    bar: Bar,
) -> tuple[Manifest, dict[GraphName, float]]:
    """Write and check the whole folder; return its manifest and the difference of each graph."""
    profile = model.profile
    prompts = read_prompts(profile.prompts.calibration, EXAMPLES)
    latents = model.adapter.noise(model.folder, profile, range(_SEED, _SEED + EXAMPLES))
    text, pooled_text = components.save_tokenizers(folder, prompts)
    (folder / SCHEDULER_CONFIG).parent.mkdir()
    shutil.copyfile(model.folder / SCHEDULER_CONFIG, folder / SCHEDULER_CONFIG)
    sources = list(_sources(model, components, latents, prompts))
    graphs = write_graphs(sources, folder, bar)
    differences = _check_graphs(sources, folder, dtype, bar)
    noise_shape = components.noise_shape(latents)
    files = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        profile=profile.name,
        family=profile.family,
        pipeline_class=profile.pipeline_class,
        denoiser_class=type(model.denoiser).__name__,
        dtype=dtype,
        opset=OPSET,
        versions=_versions(),
        shape=OutputShape(height=profile.height, width=profile.width, frames=profile.frames),
        latents=list(noise_shape),
        packed=noise_shape != latents.shape[1:],
        text=text,
        pooled_text=pooled_text,
        guidance=components.guidance,
        branches=list(profile.branches),
        negative_prompt=profile.prompts.negative,
        scheduler=SCHEDULER_CONFIG,
        graphs=graphs,
        files=file_digests(folder, files),
    )
    write_atomic(folder / MANIFEST, encode_manifest(manifest))
    check_graphs(folder, manifest)
    bar.advance("manifest written")
    return manifest, differences


def _sources(
    model: LoadedModel, components: PipelineComponents, latents: torch.Tensor, prompts: tuple[str, ...]
) -> Iterator[GraphSource]:
    """Yield the source of every graph. The denoiser's example inputs are embeddings of real prompts."""
    text = components.text_encoder_source(prompts)
    embeddings = dict(zip(text.outputs, text.run(EXAMPLES), strict=True))
    steps = model.profile.steps
    timesteps = torch.tensor(model.sampler(steps).timesteps)[:: max(1, steps // EXAMPLES)][:EXAMPLES]
    for index in range(len(model.denoisers)):
        yield from denoiser_sources(
            model.denoisers[index],
            components.call,
            latents,
            timesteps,
            embeddings,
            index,
        )
    yield text
    yield components.vae_decoder_source(latents)


def _check_graphs(
    sources: Sequence[GraphSource], folder: Path, dtype: str, bar: Bar
) -> dict[GraphName, float]:
    """Check the graphs on disk against the sources; return the largest relative difference of each."""
    differences: dict[GraphName, float] = {}
    for source in sources:
        path = folder / files_of(source.name)[0]
        check_graph(path)
        graph_dtype = "float32" if source.name == "vae_decoder" else dtype
        differences[source.name] = check_graph_parity(source, path, graph_dtype)
        bar.advance(f"{source.name} differs by {differences[source.name]:.1e}")
    return differences


def _versions() -> dict[str, str]:
    # ONNX Runtime is installed under more than one distribution name, so its module is asked.
    versions = {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__}
    return versions | {name: version(name) for name in _PACKAGES}
