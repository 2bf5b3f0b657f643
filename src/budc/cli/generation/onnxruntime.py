"""`budc run --runtime onnxruntime`: from prompts to a file without torch, diffusers or transformers."""

from __future__ import annotations

import statistics
import warnings
from typing import TYPE_CHECKING

import click

from budc.cli.output.media import write_media
from budc.progress import Bar, progress
from budc.schema.errors import printable

if TYPE_CHECKING:
    from budc.cli.generation.request import GenerationRequest
    from budc.runtimes.onnxruntime.pipeline import Generation, OnnxPipeline


def run_onnx(request: GenerationRequest, provider: str) -> str:
    """Generate, write the file and return what to print.

    Raises:
        BudcError: see `budc.runtimes.onnxruntime.pipeline.load`, or the file cannot be written.
    """
    pipe = _open(request, provider)
    clips = _generate(pipe, request)
    write_media(request.out, [[("", clip.frames)] for clip in clips])
    document = pipe.document
    seconds = statistics.fmean(clip.seconds for clip in clips)
    return (
        f"wrote {printable(str(request.out))}, seed {request.seed}, "
        f"{document.budget.nfe} NFE of {document.sampler.steps} steps, {seconds:.2f} s each on {pipe.provider.name}"
    )


def _open(request: GenerationRequest, provider: str) -> OnnxPipeline:
    """Open the export under the policy, and say on stderr what is not as calibrated."""
    from budc.runtimes.admission.settings import UncalibratedWarning
    from budc.runtimes.admission.trust import UnsignedWarning
    from budc.runtimes.onnxruntime.pipeline import load

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


def _generate(pipe: OnnxPipeline, request: GenerationRequest) -> list[Generation]:
    clips = []
    for index, prompt in enumerate(request.prompts):
        label = f"policy {index + 1}/{len(request.prompts)}"
        with progress(label, pipe.document.sampler.steps) as bar:

            def count(_step: int, bar: Bar = bar) -> None:
                bar.advance()

            clips.append(pipe.generate(prompt, seed=request.seed + index, on_step=count))
    return clips
