"""The options of a search: its budget, its algorithm, and what it may find."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from budc.cli.completion import efforts, one_of, searches

_Command = TypeVar("_Command", bound=Callable[..., object])

sweep_option = click.option("--sweep", metavar="6,8,10", help="Several budgets at once: one policy for each.")
within_option = click.option(
    "--within",
    metavar="2.0s",
    help="The largest budget whose denoising loop takes no longer on this device, as it is measured.",
)
search_option = click.option(
    "--search", metavar="NAME", shell_complete=one_of(searches), help="Search algorithm; default joint."
)
engine_option = click.option(
    "--for",
    "engine",
    metavar="TARGET",
    help="Make the policy for another engine, by its rule of reuse (docs/targets.md); `budc export config` writes it.",
)
effort_option = click.option(
    "--effort",
    metavar="NAME",
    shell_complete=one_of(efforts),
    help="fast, balanced or thorough (default): how many prompts are run.",
)
train_option = click.option(
    "--train",
    type=click.Choice(["both", "sigmas", "coefficients"]),
    help="What --align trains; default both. With --search paper: sigmas, the paper's second stage.",
)
loss_option = click.option(
    "--loss",
    type=click.Choice(["latents", "lpips"]),
    help="What the paper's second stage minimises: the error of latents (default), or LPIPS of decoded frames.",
)
proxy_option = click.option(
    "--proxy",
    metavar="frames=N,size=HxW",
    help="Search masks at this smaller size, which has fewer frames, fewer pixels or both; then search "
    "shortly at the real size, from the best ones on.",
)


def budget_option(*, required: bool = False) -> Callable[[_Command], _Command]:
    """Give a command `--budget`."""
    return click.option(
        "--budget",
        required=required,
        metavar="10|2.8x",
        help="Evaluations per guidance branch (10), or how many times fewer than the full run's (2.8x).",
    )


def quality_options(command: _Command) -> _Command:
    """Give a command `--quality` and `--worst`."""
    worst = click.option("--worst", is_flag=True, help="--quality is of the worst prompt, not of the mean.")
    quality = click.option(
        "--quality",
        metavar="BOUND",
        help="The smallest budget that keeps this, such as psnr>=30 or latent-mse<=0.01, with its standard error, on "
        "prompts that nothing was fitted on.",
    )
    return quality(worst(command))
