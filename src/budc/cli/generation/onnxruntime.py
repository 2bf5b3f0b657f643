"""`budc run --runtime onnxruntime`: from prompts to a file without torch, diffusers or transformers."""

from __future__ import annotations

import statistics
import warnings
from typing import TYPE_CHECKING

import click

from budc.cli.generation.request import Finished
from budc.cli.generation.stages import run_label, shown_stages, stage
from budc.progress import progress
from budc.runtimes.onnxruntime.pipeline import Generation, load
from budc.schema.errors import printable

if TYPE_CHECKING:
    from budc.cli.generation.request import GenerationRequest
    from budc.runtimes.onnxruntime.pipeline import OnnxPipeline


def run_onnx(request: GenerationRequest, provider: str) -> Finished:
    """Generate, write the file and return what to print.

    Raises:
        BudcError: see `budc.runtimes.onnxruntime.pipeline.load`, or the file cannot be written.
    """
    with shown_stages():
        stage("verify", f"the files of {request.weights}")
        pipe = _open(request, provider)
        clips = [_generate(pipe, request, index) for index in range(len(request.prompts))]
        out = request.write([[("", clip.frames)] for clip in clips])
    document = pipe.document
    seconds = statistics.fmean(clip.seconds for clip in clips)
    return Finished(
        f"wrote {printable(str(out))}, seed {request.seed}, "
        f"{document.budget.nfe} NFE of {document.sampler.steps} steps, {seconds:.2f} s each on {pipe.provider.name}"
    )


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


def _generate(pipe: OnnxPipeline, request: GenerationRequest, index: int) -> Generation:
    """Generate prompt `index`, as `OnnxPipeline.generate` does, stage by stage."""
    label = run_label("policy", index, len(request.prompts))
    stage("encode", label)
    embeddings, noise = pipe.encode([request.prompts[index]]), pipe.noise(request.seed + index)
    stage("denoise", label)
    with progress(label, pipe.document.sampler.steps) as bar:
        latents, seconds = pipe.denoising_loop(1).timed_run(embeddings, noise, lambda _step: bar.advance())
    stage("decode", label)
    return Generation(pipe.decode(latents)[0], latents, seconds)
