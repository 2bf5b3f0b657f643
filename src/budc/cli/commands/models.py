"""`budc models`: the model profiles of this release, and where their weights are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from budc.cli.options import json_option

if TYPE_CHECKING:
    from budc.policies.profile import ModelProfile


@click.command("models")
@json_option
def models_command(as_json: bool) -> None:
    """List the models that a policy can be compiled for.

    Weights are looked for in the package and in the hub cache; nothing is downloaded.
    """
    from budc.cli.output.tables import table
    from budc.policies.profile import load_profile, profile_names

    profiles = [load_profile(name) for name in profile_names()]
    if as_json:
        click.echo(json.dumps([_record(profile) for profile in profiles], indent=1))
        return
    headers = ("name", "title", "licence", "size", "steps", "guidance", "shape", "weights")
    click.echo(table(headers, [_row(profile) for profile in profiles], text=("title", "licence", "weights")))


def _weights(profile: ModelProfile) -> str | None:
    from budc.policies.profile import find_weights
    from budc.schema.errors import WeightsMissing

    try:
        return str(find_weights(profile, None))
    except WeightsMissing:
        return None


def _row(profile: ModelProfile) -> list[str]:
    from budc.cli.output.tables import MISSING

    size = f"{profile.size_gb:g} GB" if profile.size_gb else MISSING
    frames = f"x{profile.frames}" if profile.frames > 1 else ""
    missing = f"not found ({profile.repository or 'embedded'})"
    return [
        profile.name,
        profile.title,
        profile.licence,
        size,
        str(profile.steps),
        f"{profile.guidance:g}",
        f"{profile.width}x{profile.height}{frames}",
        _weights(profile) or missing,
    ]


def _record(profile: ModelProfile) -> dict[str, object]:
    weights = _weights(profile)
    return {
        "name": profile.name,
        "title": profile.title,
        "licence": profile.licence,
        "repository": profile.repository or None,
        "revision": profile.revision if profile.repository else None,
        "sizeGb": profile.size_gb,
        "pipelineClass": profile.pipeline_class,
        "steps": profile.steps,
        "guidance": profile.guidance,
        "height": profile.height,
        "width": profile.width,
        "frames": profile.frames,
        "weightsFound": weights is not None,
        "weights": weights,
    }
