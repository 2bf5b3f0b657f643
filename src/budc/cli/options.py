"""The options that several commands share, one definition each, so that a flag means the same everywhere.

Those of a search are in `budc.cli.search_options`, those of prompts and of a model's settings in
`budc.cli.deployment_options`, those of keys and trust in `budc.cli.trust_options`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from budc.cli.completion import models, one_of

if TYPE_CHECKING:
    from budc.progress import Form

_Command = TypeVar("_Command", bound=Callable[..., object])

PATH = click.Path(path_type=Path)
LARGEST_SEED = 2**53 - 1
LARGEST_REVISION = 2**31 - 1


def _show_progress(context: click.Context, _parameter: click.Parameter, form: Form) -> None:
    """Show progress until the command ends."""
    from budc.progress import shown_progress

    # A shell that completes a word sees none.
    if not context.resilient_parsing:
        context.with_resource(shown_progress(form))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
verbose_option = click.option("--verbose", is_flag=True, help="Also list the coefficients of reused steps.")
progress_option = click.option(
    "--progress",
    type=click.Choice(["auto", "lines", "json"]),
    default="auto",
    expose_value=False,
    callback=_show_progress,
    help="How stages and passes are shown on stderr; auto (default): bars on a terminal, else lines.",
)
name_option = click.option("--name", metavar="NAME", help="Name of the policy; default MODEL-nfeN.")
seed_option = click.option(
    "--seed", type=click.IntRange(0, LARGEST_SEED), metavar="N", help="Seed of the search; default 0."
)
catalogue_device_option = click.option(
    "--device", metavar="NAME", help="A device by its name, such as h100, in place of this machine."
)
device_option = click.option(
    "--device",
    metavar="NAME",
    help="Device of this machine to compute on: cpu, cuda, cuda:1, mps, xpu; default its accelerator.",
)
offload_option = click.option(
    "--offload",
    type=click.Choice(["model", "group"]),
    help="What is on the device at a time: a whole network (default), or one block of a denoiser.",
)
states_option = click.option(
    "--states",
    type=click.Choice(["float32", "bfloat16"]),
    help="In which dtype the intermediate states of the reference run are kept; default float32.",
)
no_frames_option = click.option(
    "--no-frames", is_flag=True, help="Decode nothing: the report is without PSNR."
)
lora_option = click.option(
    "--lora",
    multiple=True,
    metavar="FILE[:SCALE]",
    help="Adapter (LoRA, safetensors) to load, at this scale; default 1. May be given again. Where a model has several "
    "denoisers, FILE:SCALE@DENOISER loads it into one.",
)
rehash_option = click.option(
    "--rehash", is_flag=True, help="Hash every file of the model again, even if an earlier command did."
)
download_option = click.option(
    "--download", is_flag=True, help="Fetch weights that are not here from the model hub."
)


def model_option(*, required: bool = False) -> Callable[[_Command], _Command]:
    """Give a command `--model`."""
    return click.option(
        "--model",
        required=required,
        metavar="MODEL",
        shell_complete=one_of(models, files=True),
        help="A name that `budc models` lists, a profile in TOML (`budc init`), or a model folder.",
    )


own_model_option = click.option(
    "--model",
    metavar="MODEL",
    shell_complete=one_of(models, files=True),
    help="The policy's model, where it is your own: a profile in TOML, or its folder.",
)


def cluster_options(*, batch: bool = True) -> Callable[[_Command], _Command]:
    """Give a command `--ray` and what says how it is used; `batch` says whether there is anything to propose."""
    options = [
        click.option(
            "--ray",
            metavar="ADDRESS",
            help="Let workers of a Ray cluster compute: local, auto, host:port or ray://host:port (docs/scaling.md).",
        ),
        click.option(
            "--workers",
            type=click.IntRange(min=1),
            metavar="N",
            help="How many; default as many as the cluster has free GPUs, or CPUs.",
        ),
        click.option(
            "--gpus-per-worker",
            type=float,
            metavar="X",
            help="GPUs of each worker; default 1, and 0.5 lets two share one.",
        ),
    ]
    if batch:
        help_text = (
            "Candidates that the search proposes at a time, and pieces that a prompt set is cut into; default 1, with "
            "--ray 8. Another number finds another policy; another number of workers does not."
        )
        options.append(click.option("--batch", type=click.IntRange(1, 1024), metavar="N", help=help_text))

    def decorated(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


def revision_option(default: str) -> Callable[[_Command], _Command]:
    """Give a command `--revision`."""
    return click.option(
        "--revision",
        type=click.IntRange(1, LARGEST_REVISION),
        metavar="N",
        help=f"Revision under the policy's name; default {default}.",
    )


def weights_option(default: str = "the package's own, or the hub cache") -> Callable[[_Command], _Command]:
    """Give a command `--weights`; `default` says what happens without it."""
    return click.option(
        "--weights", type=PATH, metavar="DIR", help=f"Folder of the model's weights; default {default}."
    )


def out_option(metavar: str, written: str, *, required: bool = False) -> Callable[[_Command], _Command]:
    """Give a command `--out`; `written` says what it writes there."""
    return click.option("--out", required=required, type=PATH, metavar=metavar, help=written)
