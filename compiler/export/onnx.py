"""Export a model folder to graphs: `budc export onnx`.

    exported = export_onnx(load_profile("wan2.1-nano"), weights, Path("nano-onnx"), "float32")

Every graph is checked by `onnx.checker` and run against the module that it came from before the folder
appears. See `budc.runtimes.exported.manifest` for what it holds.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import msgspec
import onnx
import onnxruntime
import torch

from budc.compiler.export.components import Components, load_components
from budc.compiler.export.graphs import OPSET, specs, to_graph
from budc.compiler.export.modules import FILES, SAMPLES, WEIGHTS, ExportModule, denoiser_modules
from budc.compiler.export.parity import check_graph_parity
from budc.compiler.export.staging import check_free, staged
from budc.compiler.export.weights import WeightFile, save_graph
from budc.compiler.models.folder import SCHEDULER_CONFIG
from budc.compiler.models.model import LoadedModel, load_model
from budc.compiler.models.supported import check_one_denoiser
from budc.policies.profile import ModelProfile, read_prompts
from budc.progress import Bar, progress
from budc.runtimes.exported.graphs import check_graphs
from budc.runtimes.exported.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    Graph,
    GraphName,
    Manifest,
    OutputShape,
    encode_manifest,
)
from budc.schema.digests import file_digests
from budc.schema.errors import UnsafeWeights
from budc.schema.files import write_atomic

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

    `dtype` is that of the denoiser and the text encoder; the VAE stays in float32. What was left by a killed
    export of the same name is removed.

    Raises:
        OutputError: `out` exists or cannot be written.
        UnsupportedModel: the model is of a kind that cannot be exported.
        ParityMismatch: a graph does not compute what its module does.
        ModelError: see `budc.compiler.models.model.load_model`.
    """
    check_one_denoiser(profile, "export")
    check_free(out)
    with progress("export", 2 + 2 * len(FILES)) as bar:
        model = load_model(msgspec.structs.replace(profile, dtype=dtype), weights, torch.device("cpu"))
        parts = load_components(weights, profile, getattr(torch, dtype))
        bar.advance("model loaded")
        with staged(out) as folder:
            manifest, differences = _write(model, parts, folder, dtype, bar)
    return Exported(out, manifest, differences)


def _write(
    model: LoadedModel, parts: Components, folder: Path, dtype: Literal["float32", "float16"], bar: Bar
) -> tuple[Manifest, dict[GraphName, float]]:
    profile = model.profile
    prompts = read_prompts(profile.prompts.calibration, SAMPLES)
    latents = model.adapter.noise(model.folder, profile, range(_SEED, _SEED + SAMPLES))
    text, pooled_text = parts.save_tokenizers(folder, prompts)
    (folder / SCHEDULER_CONFIG).parent.mkdir()
    shutil.copyfile(model.folder / SCHEDULER_CONFIG, folder / SCHEDULER_CONFIG)
    graphs: dict[GraphName, Graph] = {}
    differences: dict[GraphName, float] = {}
    with ExitStack() as files:
        opened: dict[str, WeightFile] = {}
        forms = list(_forms(model, parts, latents, prompts))
        for form in forms:
            graphs[form.name] = _write_graph(form, folder, opened, files)
            bar.advance(f"{form.name} exported")
    for form in forms:
        path = folder / FILES[form.name]
        _check_model(path)
        tolerated = "float32" if form.name == "vae_decoder" else dtype
        differences[form.name] = check_graph_parity(form, path, tolerated)
        bar.advance(f"{form.name} differs by {differences[form.name]:.1e}")
    drawn = parts.drawn(latents)
    written = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]
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
        latents=list(drawn),
        packed=drawn != latents.shape[1:],
        text=text,
        pooled_text=pooled_text,
        guidance=parts.guidance,
        branches=list(profile.branches),
        negative_prompt=profile.prompts.negative,
        scheduler=SCHEDULER_CONFIG,
        graphs=graphs,
        files=file_digests(folder, written),
    )
    write_atomic(folder / MANIFEST, encode_manifest(manifest))
    check_graphs(folder, manifest)
    bar.advance("manifest written")
    return manifest, differences


def _versions() -> dict[str, str]:
    # ONNX Runtime is installed under more than one distribution's name.
    own = {"python": platform.python_version(), "onnxruntime": onnxruntime.__version__}
    return own | {name: version(name) for name in _PACKAGES}


def _forms(
    model: LoadedModel, parts: Components, latents: torch.Tensor, prompts: tuple[str, ...]
) -> Iterator[ExportModule]:
    """Yield every form, each called with what the one before it makes of real prompts."""
    text = parts.text_form(prompts)
    encoded = dict(zip(text.outputs, text.run(SAMPLES), strict=True))
    steps = model.profile.steps
    timesteps = torch.tensor(model.sampler(steps).timesteps)[:: max(1, steps // SAMPLES)][:SAMPLES]
    yield from denoiser_modules(model.denoiser, model.adapter, parts.condition, latents, timesteps, encoded)
    yield text
    yield parts.decoder_form(latents)


def _write_graph(form: ExportModule, folder: Path, opened: dict[str, WeightFile], files: ExitStack) -> Graph:
    path, weights = folder / FILES[form.name], folder / WEIGHTS[form.name]
    path.parent.mkdir(exist_ok=True)
    if str(weights) not in opened:
        file = files.enter_context(weights.open("wb"))
        opened[str(weights)] = WeightFile(file, weights.name)
    graph = to_graph(form)
    opened[str(weights)].take(graph)
    save_graph(graph, path)
    return Graph(
        file=FILES[form.name],
        inputs=specs(list(graph.graph.inputs)),
        outputs=specs(list(graph.graph.outputs)),
    )


def _check_model(path: Path) -> None:
    try:
        onnx.checker.check_model(path, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise UnsafeWeights(f"{path.name}: onnx.checker refuses it: {str(error).splitlines()[0]}") from error
