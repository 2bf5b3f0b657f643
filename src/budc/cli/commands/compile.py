"""`budc compile`: a model and a budget become a policy artifact."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.deployment_options import deployment_options
from budc.cli.help import SectionedCommand
from budc.cli.options import (
    PATH,
    cluster_options,
    device_option,
    download_option,
    json_option,
    lora_option,
    model_option,
    name_option,
    no_frames_option,
    offload_option,
    out_option,
    progress_option,
    rehash_option,
    revision_option,
    seed_option,
    states_option,
    verbose_option,
    weights_option,
)
from budc.cli.search_options import (
    budget_option,
    effort_option,
    engine_option,
    loss_option,
    proxy_option,
    quality_options,
    search_option,
    sweep_option,
    train_option,
    within_option,
)
from budc.cli.trust_options import signing_options

if TYPE_CHECKING:
    from budc.compiler.compile import Compiled
    from budc.compiler.compile_plan import CompilePlan
    from budc.compiler.storage.shard import Shard
    from budc.schema.artifact import Artifact
    from budc.schema.trust import Trust


class Steps(click.ParamType[int | str]):
    """A number of steps, or "auto"."""

    name = "steps"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return an int or "auto"."""
        return "auto" if value == "auto" else int(click.IntRange(1, 1000).convert(value, param, ctx))


@click.command("compile", cls=SectionedCommand)
@click.argument("source", required=False, type=PATH, metavar="[POLICY.toml]")
@model_option()
@budget_option()
@sweep_option
@quality_options
@within_option
@click.option(
    "--steps",
    type=Steps(),
    metavar="N|auto",
    help="Sampler steps; default the profile's. auto: these, or as many as the budget, whichever loses less.",
)
@weights_option()
@search_option
@click.option(
    "--mask",
    metavar="0,3,6|#..#..",
    help="Make a policy of this mask in place of a search: computed steps, or # (compute) and . (reuse) for each step.",
)
@click.option(
    "--fit", is_flag=True, help="Fit coefficients to --mask; else the newest cached tensor is reused."
)
@engine_option
@click.option("--align", is_flag=True, help="Also train sigmas and coefficients by gradient.")
@train_option
@loss_option
@click.option(
    "--metric-weights",
    type=PATH,
    metavar="DIR",
    help="For --loss lpips: a folder with the weights of LPIPS in lpips/.",
)
@click.option(
    "--branches",
    type=click.Choice(["together", "separate"]),
    help="One mask for all guidance branches (default), or one for each, with the same total.",
)
@click.option(
    "--shape",
    multiple=True,
    metavar="HxW[xF]",
    help="Size of the output, in place of --height, --width and --frames. Given again: the policy is searched on the "
    "first, fitted to and measured on each.",
)
@effort_option
@proxy_option
@seed_option
@deployment_options
@lora_option
@signing_options
@out_option("PATH", "Artifact to write, or folder of a sweep; default NAME.budc.json here.")
@name_option
@revision_option("1")
@download_option
@device_option
@offload_option
@states_option
@no_frames_option
@rehash_option
@click.option(
    "--shard",
    metavar="I/N",
    help="Make one of N parts of the reference runs, in the folder --out, for --merge to go on from: for several jobs.",
)
@click.option(
    "--merge",
    type=PATH,
    metavar="FOLDER",
    help="Go on from the reference runs that the jobs of --shard made.",
)
@cluster_options()
@click.option(
    "--report",
    type=PATH,
    metavar="FILE",
    help="Also write what was compiled as a page, report.html; see `budc report`.",
)
@click.option(
    "--trace",
    type=PATH,
    metavar="FILE",
    help="Also write what the search scored, in its order: one candidate a line, as JSON.",
)
@progress_option
@verbose_option
@json_option
def compile_command(
    source: Path | None, as_json: bool, verbose: bool, report: Path | None, **flags: Any
) -> None:
    """Search the best policy for a budget and write it as an artifact.

    Say what to compile with flags, or in POLICY.toml under the same names; flags win. Progress goes to stderr. When
    a compile was stopped, the same command resumes it.
    """
    from budc.compiler.policy_source import make_request, named_source, read_source

    # A switch that is not given is False, and leaves what the policy source says.
    given = {
        name: value
        for name, value in flags.items()
        if value is not None and value is not False and value != ()
    }
    asked = read_source(source) if source else {}
    with named_source(source, asked, given):
        request = make_request(asked, given)
        plan = request.resolve()
    if plan.shard is not None:
        click.echo(_make_shard(plan, plan.shard, download=request.download, as_json=as_json))
        return
    trust = None if report is None else _check_report(report)
    compiled = _compile(plan, download=request.download)
    _show(compiled, sweep=request.sweep is not None, verbose=verbose, as_json=as_json)
    if report is not None and trust is not None:
        _write_report(report, [item.artifact for item in compiled], trust)


def _make_shard(plan: CompilePlan, shard: Shard, *, download: bool, as_json: bool) -> str:
    """Make a part of the reference runs, and say how to go on."""
    from budc.cli.dependencies import RESUMES, model_libraries

    _require_packages(plan)
    folder = plan.policies[0].path.parent
    with model_libraries(download=download, if_stopped=RESUMES):
        from budc.compiler.shard_run import compile_shard

        done = compile_shard(plan, shard, folder)
    if as_json:
        written = {"shard": str(shard), "path": str(done.folder), "samples": done.samples}
        return json.dumps(written, indent=1)
    return (
        f"shard     {shard}: the full runs of {done.samples} prompts are in {done.folder}\n"
        f"next      once all {shard.jobs} are there: the same command, with --merge {folder} in place of "
        f"--shard {shard} --out {folder}"
    )


def _check_report(report: Path) -> Trust:
    """Refuse a page that could not be written, before anything is computed; return whom it will say to be trusted.

    Raises:
        MissingExtra, OutputError: it could not be drawn, or not be written.
        TrustError: the user's trust file cannot be read.
    """
    from budc.cli.dependencies import REPORT_PACKAGES, require
    from budc.cli.trust_store import load_trust
    from budc.schema.files import check_place

    require(*REPORT_PACKAGES, extra="report")
    check_place(report, "--report")
    return load_trust(())


def _write_report(report: Path, artifacts: list[Artifact], trust: Trust) -> None:
    from budc.cli.report.written import write_report

    paths = [artifact.path for artifact in artifacts if artifact.path is not None]
    click.echo(write_report(report, paths, (), trust, must_verify=False), err=True)


def _require_packages(plan: CompilePlan) -> None:
    from budc.cli.dependencies import MODEL_PACKAGES, require, require_ray

    require(*MODEL_PACKAGES, *(["peft"] if plan.target.adapters else []))
    require_ray(plan.cluster)


def _compile(plan: CompilePlan, *, download: bool) -> list[Compiled]:
    from budc.cli.dependencies import RESUMES, model_libraries

    _require_packages(plan)
    with model_libraries(download=download, if_stopped=RESUMES):
        from budc.compiler.compile import compile_measured

        return compile_measured(plan)


def _show(compiled: list[Compiled], *, sweep: bool, verbose: bool, as_json: bool) -> None:
    from budc.cli.output.compiled import page, record
    from budc.cli.output.recommendation import recommendation
    from budc.cli.output.summary import beaten, pareto

    if as_json:
        records = [record(*item) for item in compiled]
        click.echo(json.dumps(records if sweep else records[0], indent=1))
        return
    artifacts = [item.artifact for item in compiled]
    click.echo(
        f"{pareto(artifacts, [item.loop for item in compiled])}\n\n{recommendation(artifacts)}"
        if sweep
        else page(*compiled[0], verbose=verbose)
    )
    for artifact in artifacts:
        if warning := beaten(artifact.document):
            click.echo(f"{artifact.path}: {warning}", err=True)
