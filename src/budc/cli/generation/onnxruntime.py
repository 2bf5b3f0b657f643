"""`budc run --runtime onnxruntime`: from prompts to a file without torch, diffusers or transformers."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import click

from budc.cli.generation.methods import Method, comparison_table, methods, pictures
from budc.cli.generation.request import Finished
from budc.cli.generation.stages import run_label, shown_stages, stage
from budc.cli.output.verdict import speed_up
from budc.progress import progress
from budc.runtimes.onnxruntime.pipeline import Generation, load
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.cli.generation.request import GenerationRequest
    from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop
    from budc.runtimes.onnxruntime.pipeline import OnnxPipeline


def run_onnx(request: GenerationRequest, provider: str, *, compare: bool) -> Finished:
    """Generate, write the file and return what to print.

    Raises:
        BudcError: see `budc.runtimes.onnxruntime.pipeline.load`, or the file cannot be written.
        UnsupportedModel: to compare, the policy's scheduler has no schedule without diffusers.
    """
    chosen = methods(request.document, compare=compare)
    with shown_stages():
        stage("verify", f"the files of {request.weights}")
        pipe = _open(request, provider)
        loops = [_loop(pipe, method, request) for method in chosen]
        if compare:
            # The first run of a loop binds its graphs, and would be charged to the method.
            for method, loop in zip(chosen, loops, strict=True):
                _generate(pipe, loop, request, 0, f"warm-up of {method.name}")
        for method, loop in zip(chosen, loops, strict=True):
            for index in range(len(request.prompts)):
                label = run_label(method.name, index, len(request.prompts))
                method.generations.append(_generate(pipe, loop, request, index, label))
        out = request.write(pictures(chosen, request.prompts))
    wrote = f"wrote {printable(str(out))}, seed {request.seed}"
    if compare:
        speed = speed_up(chosen[0].seconds, chosen[1].seconds, pipe.provider.name)
        return Finished(f"{comparison_table(chosen)}\n{wrote}; figures are means over the prompts", speed)
    document = pipe.document
    return Finished(
        f"{wrote}, {document.budget.nfe} NFE of {document.sampler.steps} steps, "
        f"{chosen[0].seconds:.2f} s each on {pipe.provider.name}"
    )


def _loop(pipe: OnnxPipeline, method: Method, request: GenerationRequest) -> DenoisingLoop:
    if method.policy:
        return pipe.denoising_loop(1)
    experts = request.profile.experts
    return pipe.plain_loop(method.steps, () if experts is None else (experts.boundary,))


def _open(request: GenerationRequest, provider: str) -> OnnxPipeline:
    """Open the export under the policy, and say on stderr what is not as calibrated."""
    from budc.runtimes.admission.settings import UncalibratedWarning
    from budc.runtimes.admission.trust import UnsignedWarning

    with warnings.catch_warnings():
        # This command says both on stderr itself.
        warnings.simplefilter("ignore", UncalibratedWarning)
        warnings.simplefilter("ignore", UnsignedWarning)
        pipe = load(
            request.artifact,
            request.weights,
            trust=request.trust,
            provider=provider,
            digests=request.digests,
            allow_unsigned=request.allow_unsigned,
            allow_uncalibrated=request.allow_uncalibrated,
        )
    for difference in pipe.uncalibrated:
        click.echo(f"uncalibrated: {printable(difference)}", err=True)
    return pipe


def _generate(
    pipe: OnnxPipeline, loop: DenoisingLoop, request: GenerationRequest, index: int, label: str
) -> Generation:
    """Generate prompt `index` as `OnnxPipeline.generate` does, stage by stage, by a loop of the pipeline."""
    stage("encode", label)
    embeddings, noise = pipe.encode([request.prompts[index]]), pipe.noise(request.seed + index)
    stage("denoise", label)
    with progress(label, loop.document.sampler.steps) as bar:
        latents, seconds = loop.timed_run(embeddings, noise, lambda _step: bar.advance())
    stage("decode", label)
    return Generation(pipe.decode(latents)[0], latents, seconds)
