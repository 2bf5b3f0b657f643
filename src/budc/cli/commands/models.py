"""`budc models`: the model profiles of this release, where their weights are, and which policies come with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.options import json_option

if TYPE_CHECKING:
    from budc.policies.profile import ModelProfile

_HEADERS = ("name", "title", "licence", "size", "steps", "guidance", "shape", "policies", "weights")


@click.command("models")
@click.argument("name", required=False, metavar="[MODEL]")
@json_option
def models_command(name: str | None, as_json: bool) -> None:
    """List the models that a policy can be compiled for, or show MODEL and the policies that come with it.

    Weights are looked for in the package and in the hub cache; nothing is downloaded. `budc run NAME --nfe N` takes a
    policy that came with the package.
    """
    from budc.cli.output.tables import fields, table
    from budc.policies.model_choice import choose_model
    from budc.policies.profile import load_profile, profile_names

    if name is not None:
        profile = choose_model(name, "MODEL")
        click.echo(json.dumps(_record(profile), indent=1) if as_json else fields(_page(profile)))
        return
    profiles = [load_profile(each) for each in profile_names()]
    if as_json:
        click.echo(json.dumps([_record(profile) for profile in profiles], indent=1))
        return
    click.echo(table(_HEADERS, [_row(profile) for profile in profiles], text=("title", "licence", "weights")))


def _weights(profile: ModelProfile) -> str | None:
    from budc.policies.profile import find_weights
    from budc.schema.errors import WeightsMissing

    try:
        return str(find_weights(profile, None))
    except WeightsMissing:
        return None


def _policies(profile: ModelProfile) -> dict[int, Path]:
    """Return the files of the policies that come with a model, by NFE."""
    from budc.policies.embedded_policies import embedded_policies

    return {entry.nfe: entry.path for entry in embedded_policies(profile.name)}


def _row(profile: ModelProfile) -> list[str]:
    from budc.cli.output.tables import MISSING

    return [
        profile.name,
        profile.title,
        profile.licence,
        f"{profile.size_gb:g} GB" if profile.size_gb else MISSING,
        str(profile.steps),
        f"{profile.guidance:g}",
        _shape(profile),
        " ".join(map(str, _policies(profile))) or MISSING,
        _weights(profile) or f"not found ({profile.repository or 'embedded'})",
    ]


def _page(profile: ModelProfile) -> list[tuple[str, str]]:
    from budc.cli.output.tables import MISSING
    from budc.policies.embedded_policies import FOLDER, KEY, SIGNER

    policies = _policies(profile)
    pairs = [
        ("name", profile.name),
        ("title", profile.title),
        ("licence", profile.licence),
        ("sampler", f"{profile.steps} steps, guidance {profile.guidance:g}"),
        ("shape", _shape(profile)),
        ("weights", _weights(profile) or f"not found ({profile.repository or 'embedded'})"),
        ("policies", "\n".join(f"NFE {nfe:<3} {path}" for nfe, path in policies.items()) or MISSING),
    ]
    return [*pairs, ("signed by", f"{SIGNER}, {FOLDER / KEY}")] if policies else pairs


def _shape(profile: ModelProfile) -> str:
    """Return the size of the output as `--shape` takes it: HEIGHTxWIDTH, and xFRAMES for a video."""
    frames = f"x{profile.frames}" if profile.frames > 1 else ""
    return f"{profile.height}x{profile.width}{frames}"


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
        "policies": [{"nfe": nfe, "path": str(path)} for nfe, path in _policies(profile).items()],
    }
