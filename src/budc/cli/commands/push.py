"""`budc push`: a folder that a hub's own client can upload as a repository of policies."""

from __future__ import annotations

from pathlib import Path

import click

from budc.schema.errors import OutputError, UsageError, printable

_PATH = click.Path(path_type=Path)


@click.command("push")
@click.argument("policies", nargs=-1, required=True, type=_PATH, metavar="POLICY...")
@click.option("--out", required=True, type=_PATH, metavar="FOLDER", help="Made if it is not there.")
@click.option("--base-model", metavar="REPOSITORY", help="Of the model; default the profile's.")
@click.option("--licence", default="apache-2.0", show_default=True, help="Of the policies, as hubs name it.")
def push_command(policies: tuple[Path, ...], out: Path, base_model: str | None, licence: str) -> None:
    """Prepare a hub repository of the artifacts POLICY in a folder. Nothing is sent.

    The model's own repository stays as it is; `base_model` in the metadata ties the two together.
    """
    import json

    from budc.cli.commands.inspect import page
    from budc.runtimes.diffusers.pipeline import profile_of
    from budc.schema.artifact import SUFFIX, read
    from budc.schema.files import write_atomic

    artifacts = [read(path) for path in policies]
    profiles = {artifact.document.model.profile for artifact in artifacts}
    if len(profiles) > 1:
        raise UsageError(
            f"policies of several models: {', '.join(sorted(profiles))}", remedy="push each model's alone"
        )
    base = base_model or profile_of(artifacts[0].document).repository
    if not base:
        raise UsageError("the model's profile names no repository", remedy="--base-model REPOSITORY")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make {out}: {error.strerror}") from error
    head = {"base_model": base, "license": licence, "library_name": "budc"}
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items())]
    lines += ["tags:", "- diffusion", "- caching", "---", "", f"# Step-caching policies for {base}", ""]
    for artifact in artifacts:
        name = f"{artifact.document.name}{SUFFIX}"
        write_atomic(out / name, artifact.path.read_bytes() if artifact.path else b"")
        lines += [f"## {name}", "", "```text", page(artifact).replace("```", "` ` `"), "```", ""]
    lines += ["The text above is what the files say; `budc verify` decides whether to believe it.", ""]
    write_atomic(out / "README.md", "\n".join(lines).encode())
    click.echo(
        f"prepared  {printable(str(out))}: {len(artifacts)} policies and README.md; upload it with the hub's client"
    )
