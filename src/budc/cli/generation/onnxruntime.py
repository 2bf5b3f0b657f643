"""`budc run --runtime onnxruntime`: from prompts to a file without torch, diffusers or transformers."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.output.media import write_media
from budc.progress import Bar, progress
from budc.schema.errors import UsageError, printable

if TYPE_CHECKING:
    from budc.runtimes.onnxruntime.pipeline import Generation, OnnxPipeline
    from budc.schema.artifact import Artifact
    from budc.schema.digest_cache import DigestCache
    from budc.schema.trust import Trust


def open_export(
    artifact: Artifact,
    folder: Path | None,
    trust: Trust,
    provider: str,
    digests: DigestCache,
    *,
    allow_unsigned: bool,
    allow_uncalibrated: bool,
) -> OnnxPipeline:
    """Open the export in `folder` under the policy, and say what is not as calibrated.

    Raises:
        UsageError: no folder was given.
        BudcError: see `budc.runtimes.onnxruntime.pipeline.load`.
    """
    from budc.runtimes.onnxruntime.pipeline import UncalibratedWarning, UnsignedWarning, load

    if folder is None:
        raise UsageError(
            "--weights: the ONNX runtime needs the folder of an export",
            remedy="--weights DIR, made with `budc export onnx`",
        )
    with warnings.catch_warnings():
        # Both are said on stderr by this command itself.
        warnings.simplefilter("ignore", UncalibratedWarning)
        warnings.simplefilter("ignore", UnsignedWarning)
        pipe = load(
            artifact,
            folder,
            trust=trust,
            provider=provider,
            digests=digests,
            allow_unsigned=allow_unsigned,
            allow_uncalibrated=allow_uncalibrated,
        )
    for difference in pipe.uncalibrated:
        click.echo(f"uncalibrated: {printable(difference)}", err=True)
    return pipe


def generate_clips(pipe: OnnxPipeline, prompts: Sequence[str], seed: int) -> list[Generation]:
    """Generate each prompt, prompt i from the noise of `seed + i`, with progress on stderr."""
    made = []
    for index, prompt in enumerate(prompts):
        label = f"policy {index + 1}/{len(prompts)}"
        with progress(label, pipe.document.sampler.steps) as bar:

            def count(_step: int, bar: Bar = bar) -> None:
                bar.advance()

            made.append(pipe.generate(prompt, seed=seed + index, on_step=count))
    return made


def run_onnx(pipe: OnnxPipeline, prompts: Sequence[str], seed: int, out: Path) -> str:
    """Generate, write `out` and return the line that says so. Raises OutputError."""
    made = generate_clips(pipe, prompts, seed)
    write_media(out, [[("", one.frames)] for one in made])
    document = pipe.document
    seconds = statistics.fmean(one.seconds for one in made)
    return (
        f"wrote {printable(str(out))}, seed {seed}, {document.budget.nfe} NFE of {document.sampler.steps} steps, "
        f"{seconds:.2f} s each on {pipe.provider.name}"
    )
