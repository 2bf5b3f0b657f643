"""The options of prompts, and of the settings that a user may deploy a model with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from budc.cli.options import PATH

_Command = TypeVar("_Command", bound=Callable[..., object])

calibration_option = click.option(
    "--calibration",
    type=PATH,
    metavar="FILE",
    help="Prompts to search on, one a line, or .csv or .jsonl with seeds and negative prompts; default the profile's.",
)
held_out_option = click.option(
    "--held-out",
    type=PATH,
    metavar="FILE",
    help="Prompts to report on, as for --calibration; default the profile's.",
)
quantize_option = click.option(
    "--quantize",
    metavar="KIND",
    help="Load the denoisers quantised, for example fp8-storage; default the profile's.",
)
negative_option = click.option(
    "--negative", metavar="TEXT", help="Negative prompt to guide away from; default the profile's."
)


def deployment_options(command: _Command) -> _Command:
    """Give a command the prompts and the settings that a user may deploy a model with."""
    size, count = click.IntRange(1, 65536), click.IntRange(1, 1 << 20)
    options = [
        calibration_option,
        click.option(
            "--calibration-size", type=count, metavar="N", help="How many of them; default all of FILE."
        ),
        held_out_option,
        click.option(
            "--held-out-size", type=count, metavar="N", help="How many of them; default all of FILE."
        ),
        click.option(
            "--height", type=size, metavar="PIXELS", help="Height of the output; default the profile's."
        ),
        click.option(
            "--width", type=size, metavar="PIXELS", help="Width of the output; default the profile's."
        ),
        click.option("--frames", type=size, metavar="N", help="Frames of a video; default the profile's."),
        click.option(
            "--text-tokens",
            type=click.IntRange(1, 512),
            metavar="N",
            help="Tokens that text is padded to; default the profile's. ComfyUI pads FLUX's text to 256.",
        ),
        quantize_option,
        click.option(
            "--guidance", type=float, metavar="SCALE", help="Guidance scale; default the profile's."
        ),
        click.option(
            "--dtype",
            type=click.Choice(["float32", "bfloat16", "float16"]),
            help="Precision of the denoiser; default the profile's.",
        ),
        click.option("--scheduler", metavar="CLASS", help="Scheduler by its class; default the profile's."),
        negative_option,
    ]
    for option in reversed(options):
        command = option(command)
    return command
