"""What both runtimes are given: an export of the model, and artifacts that bind weights and export."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import msgspec
import overhead

from budc.compiler.export.export import export_onnx
from budc.policies.profile import load_profile
from budc.runtimes.onnx_folder import describe_export
from budc.schema.artifact import seal


def policies(
    model: str, budgets: Sequence[int], export: Path, folder: Path
) -> list[tuple[str, list[bool], int]]:
    """Write an unsigned artifact with a uniform mask for every budget, bound to the weights and the export."""
    variant, _ = describe_export(export)
    written = []
    for nfe in budgets:
        document = overhead.document(model, nfe)
        variants = [*document.model.variants, variant]
        binding = msgspec.structs.replace(document.model, variants=variants)
        path = folder / f"nfe{nfe}.budc.json"
        path.write_bytes(seal(msgspec.structs.replace(document, model=binding), None))
        written.append((str(path), list(document.policy.branches[0].mask), nfe))
    return written


def exported(model: str, weights: Path, folder: Path) -> Path:
    """Export the model."""
    out = folder / "export"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(load_profile(model), weights, out, "float32")
    return out
