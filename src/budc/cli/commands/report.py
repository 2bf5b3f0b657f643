"""`budc report`: policies and their evaluations as one page of HTML."""

from __future__ import annotations

from pathlib import Path

import click

from budc.cli.options import PATH, out_option
from budc.cli.trust_options import trust_option


@click.command("report")
@click.argument("paths", nargs=-1, required=True, type=PATH, metavar="FILE|FOLDER...")
@click.option(
    "--evaluation",
    "evaluations",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="What `budc evaluate` wrote of one of the policies; may be given again.",
)
@trust_option
@out_option("FILE", "report.html, the page.", required=True)
def report_command(
    paths: tuple[Path, ...], evaluations: tuple[Path, ...], trusted: tuple[Path, ...], out: Path
) -> None:
    """Show what policies are worth, as one page that needs no network.

    Takes artifacts, or folders of them, such as `budc compile --sweep` writes. Evaluations that lie in a folder are
    taken as well: they add times, the values of each prompt, and other methods.

    With --trust every artifact must be signed by whom you name. Without it the page says which are verified by your
    own trust file, and which are not. An evaluation that no trusted evaluator signed is marked as not verified.
    """
    from budc.cli.dependencies import REPORT_PACKAGES, require
    from budc.cli.trust_store import load_trust
    from budc.schema.files import check_place

    require(*REPORT_PACKAGES, extra="report")
    check_place(out)
    from budc.cli.report.written import write_report

    click.echo(write_report(out, paths, evaluations, load_trust(trusted), must_verify=bool(trusted)))
