"""`budc run`: generate with a policy, and on request compare it with the full run and a run of fewer steps."""

from __future__ import annotations

from typing import Any

import click

from budc.cli.options import (
    LARGEST_SEED,
    PATH,
    device_option,
    lora_option,
    out_option,
    own_model_option,
    progress_option,
    rehash_option,
    weights_option,
)
from budc.cli.trust_options import former_key_option, require_evaluation_option, trust_options


@click.command("run")
@click.argument("policy", metavar="FILE|MODEL_DIR|NAME")
@click.option(
    "--nfe", type=click.IntRange(1), metavar="N", help="Which of the policies of MODEL_DIR or NAME."
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    required=True,
    metavar="TEXT",
    help="What to show; may be given again.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Picture to start from, for a model that takes one; given again, one for each prompt.",
)
@out_option(
    "FILE",
    "video.mp4, .gif or .webp, or a row of frames for each prompt: picture.png or .jpg; default a new file here.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST_SEED),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the noise; prompt i starts from N + i.",
)
@own_model_option
@weights_option()
@lora_option
@click.option(
    "--negative",
    metavar="TEXT",
    help="Negative prompt; default the policy's, or the profile's where it varied.",
)
@trust_options
@former_key_option
@require_evaluation_option
@click.option(
    "--allow-uncalibrated", is_flag=True, help="Run with other settings or weights than calibrated."
)
@rehash_option
@click.option(
    "--runtime",
    type=click.Choice(["diffusers", "onnxruntime"]),
    default="diffusers",
    show_default=True,
    help="onnxruntime takes the folder of `budc export onnx` as --weights, and needs no torch.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    help="Hardware for onnxruntime; default cpu. Never replaced by another.",
)
@progress_option
@device_option
@click.option(
    "--compare", is_flag=True, help="Also make the full run and a run of fewer steps, from the same noise."
)
def run_command(**flags: Any) -> None:
    """Generate pictures or a video with a policy.

    The policy is the artifact FILE, one that is attached to MODEL_DIR, or one that came with the embedded model NAME.
    FILE and those of MODEL_DIR must be signed by a key that you trust; those of the package are believed as it is. The
    model must be, file by file, the one that it was compiled for. Weights are read from local safetensors or ONNX
    files; nothing is downloaded.
    """
    from budc.cli.generation.asked import asked
    from budc.cli.generation.run_options import RunOptions, check_flags
    from budc.cli.output.summary import quality
    from budc.cli.output.verdict import verdict

    options = RunOptions(**flags)
    check_flags(options)
    request = asked(options)
    if options.on_onnx:
        from budc.cli.generation.onnxruntime import run_onnx

        done = run_onnx(request, options.provider or "cpu", compare=options.compare)
    else:
        from budc.cli.generation.diffusers import run_diffusers

        done = run_diffusers(request, compare=options.compare)
    sentence = verdict(request.document, request.evaluations(), done.speed)
    click.echo("\n\n".join([sentence, quality(request.document), done.page]))
