"""`budc init`: a profile for a model folder, for its owner to change and to compile with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.cli.options import PATH, out_option

if TYPE_CHECKING:
    from budc.policies.profile import ModelProfile


@click.command("init")
@click.argument("folder", type=PATH, metavar="MODEL_DIR")
@out_option("FILE", "Profile to write, such as my.toml; default NAME.toml here, - for the standard output.")
@click.option(
    "--like", metavar="NAME", help="Deploy it as this shipped model; default the one it is most like."
)
def init_command(folder: Path, out: Path | None, like: str | None) -> None:
    """Write a profile for the model in MODEL_DIR.

    Family, classes, architecture and scheduler are read from its configurations, the rest is taken from the shipped
    model that it is most like. Every line says what it means. Then `budc compile --model FILE` compiles for it; while
    nothing needs to be changed, `--model MODEL_DIR` does so without a file.
    """
    from budc.policies.folder_profile import profile_from_folder, read_object
    from budc.policies.profile_text import profile_text
    from budc.schema.errors import OutputError
    from budc.schema.files import check_place, write_atomic
    from budc.schema.model_config import settings_of
    from budc.schema.printable import printable

    made = profile_from_folder(folder, like)
    profile = made.profile
    path = Path(f"{profile.name}.toml") if out is None else out
    printed = str(path) == "-"
    if not printed and os.path.lexists(path):
        raise OutputError(f"--out: {path} is there already", remedy="give another name, or remove it")
    beside = Path() if printed else path.parent
    text = profile_text(
        made,
        Path(os.path.relpath(folder, beside) if not folder.is_absolute() else folder),
        _trunk(profile, folder),
        settings_of(read_object(folder / "scheduler" / "scheduler_config.json")),
    )
    if printed:
        click.echo(text, nl=False)
        return
    check_place(path)
    write_atomic(path, text.encode("utf-8"))
    click.echo(
        f"wrote   {printable(str(path))}\nfamily  {profile.family}, deployed as {made.base}\n"
        f"next    budc compile --model {printable(str(path))} --budget 10"
    )


def _trunk(profile: ModelProfile, folder: Path) -> str:
    """Return the block lists of the first denoiser and, where its configuration says so, how long they are."""
    from budc.policies.folder_profile import read_object
    from budc.runtimes.sampling.families import FAMILIES

    config = read_object(folder / "transformer" / "config.json")
    lengths = {
        "transformer_blocks": "num_layers",
        "blocks": "num_layers",
        "single_transformer_blocks": "num_single_layers",
        "layers": "n_layers",
    }
    names = [span.name for span in FAMILIES[profile.denoisers["transformer"]].spans]
    counted = {name: config.get(lengths.get(name, "")) for name in names}
    return ", ".join(f"{name} ({count})" if count else name for name, count in counted.items())
