"""`budc export onnx`: a model folder becomes graphs that run without torch."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from budc.cli.dependencies import MODEL_PACKAGES, ONNX_PACKAGES, Interrupted, quiet_libraries, require
from budc.cli.output.tables import fields
from budc.schema.errors import printable

if TYPE_CHECKING:
    from budc.compiler.export.onnx import Exported

_PATH = click.Path(path_type=Path)


@click.group("export")
def export_command() -> None:
    """Convert a model for another runtime."""


@export_command.command("onnx")
@click.option("--model", required=True, metavar="NAME", help="Model profile; `budc models` lists them.")
@click.option(
    "--weights", type=_PATH, metavar="DIR", help="Model folder; default embedded, or the hub cache."
)
@click.option("--out", required=True, type=_PATH, metavar="DIR", help="Folder to make; must not exist.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of denoiser and text encoder; the VAE stays in float32.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def onnx_command(
    model: str, weights: Path | None, out: Path, dtype: Literal["float32", "float16"], as_json: bool
) -> None:
    """Export a model to ONNX: denoiser, text encoder, VAE decoder, tokenizer.

    Every graph is checked and compared with PyTorch before DIR appears; an export that fails or is killed leaves no
    DIR behind. To run a policy on it, bind the policy to it with `budc bind`.
    """
    require(*MODEL_PACKAGES, *ONNX_PACKAGES, "onnxscript", extra="export")
    from budc.policies.profile import find_weights, load_profile

    profile = load_profile(model)
    folder = find_weights(profile, weights)
    # Whatever a library prints must not end up in the result.
    with contextlib.redirect_stdout(sys.stderr):
        # First: pipelines say something as soon as they are imported.
        quiet_libraries()
        from budc.compiler.export.onnx import export_onnx

        try:
            exported = export_onnx(profile, folder, out, dtype)
        except KeyboardInterrupt:
            raise Interrupted(": nothing was written") from None
    click.echo(json.dumps(_record(exported), indent=1) if as_json else _page(exported))


def _page(exported: Exported) -> str:
    manifest = exported.manifest
    sizes = {name: (exported.folder / name).stat().st_size for name in manifest.files}
    pairs = [("wrote", f"{printable(str(exported.folder))}, {sum(sizes.values()) / 1e6:.1f} MB")]
    pairs += [
        (name, f"{manifest.graphs[name].file}, differs from PyTorch by {difference:.1e} of the largest value")
        for name, difference in exported.differences.items()
    ]
    pairs.append(("opset", f"{manifest.opset}, {manifest.dtype}"))
    return fields(pairs)


def _record(exported: Exported) -> dict[str, object]:
    manifest = exported.manifest
    return {
        "path": str(exported.folder),
        "dtype": manifest.dtype,
        "opset": manifest.opset,
        "differences": exported.differences,
        "files": dict(manifest.files),
    }
