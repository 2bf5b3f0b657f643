"""What both runtimes are given: an export of the model, and artifacts that bind weights and export."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import overhead

from budc.compiler.export.export import export_onnx
from budc.policies.profile import load_profile
from budc.runtimes.onnx_folder import describe_export
from budc.schema.artifact import seal


def policies(
    model: str, budgets: Sequence[int], payloads: Sequence[str], export: Path, folder: Path
) -> list[dict[str, Any]]:
    """Write an unsigned artifact with a uniform mask for every budget and payload, bound to the weights and the export.

    Return where each is, and what it asks for.
    """
    variant, _ = describe_export(export)
    written = []
    for nfe, payload in product(budgets, payloads):
        document = overhead.document(model, nfe)
        mask = list(document.policy.branches[0].mask)
        if all(mask) and payload != payloads[0]:
            continue  # nothing is reused
        variants = [*document.model.variants, variant]
        binding = msgspec.structs.replace(document.model, variants=variants)
        policy = msgspec.structs.replace(document.policy, payload=payload)
        document = msgspec.structs.replace(document, model=binding, policy=policy)
        path = folder / f"nfe{nfe}-{payload}.budc.json"
        path.write_bytes(seal(document, None))
        written.append({"path": str(path), "mask": mask, "nfe": nfe, "payload": payload})
    return written


def exported(model: str, weights: Path, folder: Path) -> Path:
    """Export the model."""
    out = folder / "export"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(load_profile(model), weights, out, "float32")
    return out
