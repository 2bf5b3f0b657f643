"""The inputs of both runtimes: weights, an export of them, and artifacts that list both."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import click
import msgspec
import overhead
from random_models.folder import random_folder

from budc.compiler.export.onnx import export_onnx
from budc.policies.profile import ModelProfile, find_weights, load_profile
from budc.runtimes.exported.folder import describe_export
from budc.schema.artifact import seal


def weights_of(name: str, shape: str | None, folder: Path) -> tuple[ModelProfile, Path]:
    """Return the profile of a model and the folder of its weights, in float32.

    With a shape, such as "64x64x9" for height, width and frames, random weights for the profile's architecture are
    written below `folder`.
    """
    profile = load_profile(name)
    if shape is None:
        return profile, find_weights(profile, None)
    if profile.pipeline_class != "WanPipeline":
        raise click.UsageError(f"--random: {name} is a {profile.pipeline_class}, expected a WanPipeline")
    try:
        height, width, frames = (int(extent) for extent in shape.split("x"))
    except ValueError:
        raise click.UsageError(f"--random: {shape!r} is not HEIGHTxWIDTHxFRAMES, say 64x64x9") from None
    profile = msgspec.structs.replace(profile, height=height, width=width, frames=frames, dtype="float32")
    return profile, random_folder(profile, folder / "model")


def policies(
    profile: ModelProfile,
    weights: Path,
    export: Path,
    budgets: Sequence[int],
    payloads: Sequence[str],
    folder: Path,
) -> list[dict[str, Any]]:
    """Write an unsigned artifact with a uniform mask for each of the budgets and payloads.

    Return path, mask, NFE and payload of each.
    """
    variant, _ = describe_export(export)
    written = []
    for document, payload in product(overhead.documents(profile, weights, budgets), payloads):
        mask = list(document.policy.branches[0].mask)
        if all(mask) and payload != payloads[0]:
            continue  # nothing is reused
        variants = [*document.model.variants, variant]
        binding = msgspec.structs.replace(document.model, variants=variants)
        policy = msgspec.structs.replace(document.policy, payload=payload)
        nfe, path = document.budget.nfe, folder / f"nfe{document.budget.nfe}-{payload}.budc.json"
        path.write_bytes(seal(msgspec.structs.replace(document, model=binding, policy=policy), None))
        written.append({"path": str(path), "mask": mask, "nfe": nfe, "payload": payload})
    return written


def export(job: dict[str, Any]) -> dict[str, Any]:
    """Export the model of a job; return the seconds that it took."""
    profile = msgspec.convert(job["profile"], ModelProfile)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(profile, Path(job["weights"]), Path(job["export"]), "float32")
    return {"seconds": time.perf_counter() - started}
