"""`budc export onnx`: a model folder becomes graphs that run without torch. Its sibling is `budc export config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from budc.cli.commands.export_config import config_command
from budc.cli.deployment_options import negative_option
from budc.cli.options import json_option, model_option, out_option, progress_option, weights_option

if TYPE_CHECKING:
    from budc.compiler.export.onnx import Exported


@click.group("export")
def export_command() -> None:
    """Convert a model or a policy for another runtime."""


export_command.add_command(config_command)


@export_command.command("onnx")
@model_option(required=True)
@weights_option()
@out_option("DIR", "Folder to make; it must not exist.", required=True)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Precision of denoiser and text encoder; the VAE stays in float32.",
)
@negative_option
@progress_option
@json_option
def onnx_command(
    model: str,
    weights: Path | None,
    out: Path,
    dtype: Literal["float32", "float16"],
    negative: str | None,
    as_json: bool,
) -> None:
    """Export a model to ONNX.

    DIR gets denoiser, text encoder, VAE decoder and tokenizer. Every graph is checked and compared with PyTorch before
    DIR appears; an export that fails or is stopped leaves no DIR behind. Then `budc bind` binds a policy to the export.
    """
    from budc.cli.dependencies import MODEL_PACKAGES, ONNX_PACKAGES, model_libraries, require
    from budc.compiler.export.atomic_folder import check_new_folder
    from budc.compiler.models.supported import check_exportable
    from budc.policies.deployment import Deployment
    from budc.policies.model_choice import choose_model
    from budc.policies.profile import find_weights
    from budc.schema.files import check_place

    profile = Deployment(negative=negative).deployed(choose_model(model))
    check_exportable(profile, "export")
    check_new_folder(out)
    check_place(out)
    require(*MODEL_PACKAGES, *ONNX_PACKAGES, "onnxscript", extra="export")
    folder = find_weights(profile, weights)
    with model_libraries(if_stopped="nothing was written"):
        from budc.compiler.export.onnx import export_onnx

        exported = export_onnx(profile, folder, out, dtype)
    click.echo(json.dumps(_record(exported), indent=1) if as_json else _page(exported))


def _page(exported: Exported) -> str:
    from budc.cli.output.tables import fields
    from budc.schema.printable import printable

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
