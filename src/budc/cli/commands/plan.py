"""`budc plan`: forwards, device memory and hours of a compile, before it is run."""

from __future__ import annotations

import json
from typing import Any

import click

from budc.cli.options import (
    catalogue_device_option,
    json_option,
    model_option,
    progress_option,
    weights_option,
)
from budc.cli.search_options import (
    budget_option,
    effort_option,
    engine_option,
    loss_option,
    proxy_option,
    search_option,
    sweep_option,
    train_option,
)


@click.command("plan")
@model_option(required=True)
@budget_option()
@sweep_option
@click.option(
    "--steps", type=click.IntRange(1, 1000), metavar="N", help="Sampler steps; default the profile's."
)
@search_option
@effort_option
@proxy_option
@engine_option
@click.option("--align", is_flag=True, help="Include the cost of aligning.")
@train_option
@loss_option
@catalogue_device_option
@click.option(
    "--memory",
    type=click.FloatRange(0, 1e6, min_open=True),
    metavar="GB",
    help="Memory of your device, to see what fits; default that of --device.",
)
@click.option(
    "--shards",
    type=click.IntRange(1, 1000),
    default=1,
    metavar="N",
    help="Also the time where N jobs share the full runs, see --shard of compile.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Also the time where N workers of a Ray cluster share the compile, see --ray of compile.",
)
@click.option("--time", "timed", is_flag=True, help="Time a forward of the weights on this machine.")
@weights_option("the package's own, or the hub cache; with --time")
@progress_option
@json_option
def plan_command(as_json: bool, **flags: Any) -> None:
    """Estimate what a compile will cost.

    Prints forwards, device memory and time, for each effort and on each device that is known, and what would make the
    compile cheaper.

    Costs of the models that the package ships are part of it; those of your own are counted from the architecture.
    """
    from budc.cli.output.plan import page
    from budc.cli.output.plan_record import record
    from budc.cli.planning.asked import plan_request
    from budc.cli.planning.estimated import estimated

    planned = estimated(plan_request(**flags))
    click.echo(json.dumps(record(planned), indent=1) if as_json else page(planned))
