"""`budc push`: a folder that a hub's own client can upload as a repository of policies."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.options import PATH, out_option
from budc.schema.errors import OutputError, UsageError
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact

_PLAIN = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)?")


@click.command("push")
@click.argument("policies", nargs=-1, required=True, type=PATH, metavar="POLICY...")
@out_option("DIR", "Folder to write; made if it does not exist.", required=True)
@click.option(
    "--base-model", metavar="REPOSITORY", help="Hub repository of the model; default the profile's."
)
@click.option(
    "--licence",
    default="apache-2.0",
    show_default=True,
    metavar="NAME",
    help="Licence of the policies, as hubs name it.",
)
def push_command(policies: tuple[Path, ...], out: Path, base_model: str | None, licence: str) -> None:
    """Prepare a folder of policies for a model hub.

    The folder gets the artifacts POLICY, the evaluations beside them, what they say as a page (report.html), and a
    README.md with the hub's metadata, whose `base_model` names the model's own repository. Nothing is sent: upload the
    folder with the hub's client.
    """
    from budc.schema.artifact import SUFFIX, read
    from budc.schema.canonical import MAX_BYTES
    from budc.schema.discover import refuse_older, refuse_rivals
    from budc.schema.evaluations import copies
    from budc.schema.files import read_limited, write_atomic
    from budc.schema.plural import counted

    # Each file is read once: what is written is what was checked.
    contents = [read_limited(path, MAX_BYTES) for path in policies]
    artifacts = [replace(read(data), path=path) for data, path in zip(contents, policies, strict=True)]
    targets = [out / f"{artifact.document.name}{SUFFIX}" for artifact in artifacts]
    if len(set(targets)) < len(targets):
        raise UsageError(
            "several policies of one name, of which a repository holds one", remedy="push the newest alone"
        )
    for target, artifact in zip(targets, artifacts, strict=True):
        refuse_older(target, artifact)
        if os.path.isfile(target):
            refuse_rivals([read(target), artifact])
    profiles = {artifact.document.pipeline().profile for artifact in artifacts}
    if len(profiles) > 1:
        raise UsageError(
            f"policies of several models: {', '.join(sorted(profiles))}", remedy="push each model's alone"
        )
    base = base_model or _base_model(artifacts)
    for option, value in (("--base-model", base), ("--licence", licence)):
        # Both become part of a page that a hub renders.
        if not _PLAIN.fullmatch(value):
            raise UsageError(
                f"{option}: {value!r} is no name on a hub", remedy="letters, digits and . _ - / alone"
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--out: cannot make {out}: {error.strerror}") from error
    for target, artifact, data in zip(targets, artifacts, contents, strict=True):
        for path, content in copies(Path(str(artifact.path)), artifact.policy_id, target).items():
            write_atomic(path, content)
        write_atomic(target, data)
    write_atomic(out / "README.md", _card(artifacts, base, licence).encode())
    pages = "README.md and report.html" if _write_report(out, artifacts) else "README.md"
    count = counted(len(artifacts), "policy", "policies")
    click.echo(f"prepared  {printable(str(out))}: {count}, {pages}; upload it with the hub's client")


def _write_report(out: Path, artifacts: Sequence[Artifact]) -> bool:
    """Write the page of these policies; return whether the packages that it needs are here."""
    from budc.cli.dependencies import REPORT_PACKAGES, require
    from budc.schema.errors import MissingExtra
    from budc.schema.evaluations import own_evaluations
    from budc.schema.trust import Trust

    try:
        require(*REPORT_PACKAGES, extra="report")
    except MissingExtra as error:
        click.echo(f"without report.html: {error}; {error.remedy}", err=True)
        return False
    from budc.cli.report.written import write_report

    paths = [(Path(str(artifact.path)), artifact.policy_id) for artifact in artifacts]
    evaluations = [file for path, policy_id in paths for file in own_evaluations(path, policy_id)]
    # It says nothing of whom you trust: its readers trust others.
    nobody = Trust(keys=())
    write_report(out / "report.html", [path for path, _ in paths], evaluations, nobody, must_verify=False)
    return True


def _base_model(artifacts: Sequence[Artifact]) -> str:
    from budc.policies.artifact_profile import profile_of

    repository = profile_of(artifacts[0].document).repository
    if not repository:
        raise UsageError("the model's profile names no repository", remedy="--base-model REPOSITORY")
    return repository


def _card(artifacts: Sequence[Artifact], base: str, licence: str) -> str:
    """Return the repository's README: metadata for the hub, then what each artifact says."""
    from budc.cli.output.artifact import page
    from budc.schema.artifact import SUFFIX

    metadata = {"base_model": base, "license": licence, "library_name": "budc"}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in metadata.items())]
    lines += ["tags:", "- diffusion", "- caching", "---", "", f"# Step-caching policies for {base}", ""]
    for artifact in artifacts:
        # A fence within the page would end the block.
        text = page(artifact, verbose=True).replace("```", "` ` `")
        lines += [f"## {artifact.document.name}{SUFFIX}", "", "```text", text, "```", ""]
    lines += ["The text above is what the files say; `budc verify` decides whether to believe it.", ""]
    return "\n".join(lines)
