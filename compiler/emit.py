"""Pass 5, emit: what the passes found becomes one document, sealed and written atomically."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

from budc.compiler.request import CompileRequest
from budc.compiler.search.joint import rollout_limit
from budc.compiler.selection.alignment import epochs
from budc.compiler.selection.task import SEARCH_SHARE, SearchResult
from budc.policies.profile import ModelProfile
from budc.schema.artifact import seal
from budc.schema.files import write_atomic
from budc.schema.keys import Signer
from budc.schema.policy import (
    SCHEMA_VERSION,
    Budget,
    ModelBinding,
    PolicyDocument,
    Quality,
    SamplerBinding,
    Search,
    Shape,
)
from budc.schema.timestamps import issue_time

_PACKAGES = ("budc", "torch", "diffusers", "transformers")


def versions() -> dict[str, str]:
    """Return the versions that a search's result may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def output_shape(profile: ModelProfile) -> Shape:
    """Return the shape that a profile's quality is measured for."""
    return Shape(
        height=profile.height,
        width=profile.width,
        frames=profile.frames,
        dtype=profile.dtype,
        text_tokens=profile.text_tokens,
    )


def make_document(
    request: CompileRequest,
    profile: ModelProfile,
    binding: ModelBinding,
    sampler: SamplerBinding,
    budget: str,
    nfe: int,
    found: SearchResult,
    quality: Quality,
) -> PolicyDocument:
    """Assemble the policy document of one budget."""
    evaluated = {name: sum(branch.mask) for branch in found.policy.branches for name in branch.names}
    return PolicyDocument(
        schema_version=SCHEMA_VERSION,
        name=artifact_name(request, profile, nfe),
        revision=request.revision,
        issued_at=issue_time(),
        model=binding,
        sampler=sampler,
        shape=output_shape(profile),
        budget=Budget(
            requested=budget,
            nfe=max(evaluated.values()),
            branches={name: evaluated[name] for name in profile.branches},
        ),
        policy=found.policy,
        quality=quality,
        search=Search(
            algorithm=request.search,
            seed=request.seed,
            candidates=found.candidates,
            forwards=found.forwards,
            settings=_settings(request, profile, nfe, found),
            versions=versions(),
        ),
    )


def artifact_name(request: CompileRequest, profile: ModelProfile, nfe: int) -> str:
    """Return the name of the policy of one budget; a sweep's names all end in the NFE."""
    if request.name is None:
        return f"{profile.name}-nfe{nfe}"
    return f"{request.name}-nfe{nfe}" if request.sweep else request.name


def _settings(
    request: CompileRequest, profile: ModelProfile, nfe: int, found: SearchResult
) -> dict[str, bool | int | float | str]:
    settings: dict[str, bool | int | float | str] = {"calibrationLoss": found.loss, "aligned": found.aligned}
    if request.search == "paper":
        settings |= msgspec.to_builtins(profile.search)
    if request.search == "joint":
        steps = request.steps if isinstance(request.steps, int) else profile.steps
        settings |= {
            "allowance": rollout_limit(steps, nfe),
            "searchShare": SEARCH_SHARE,
            "branches": request.branches,
        }
    if request.align:
        settings["epochs"] = epochs(nfe)
    return settings | {f"choice{number}": note for number, note in enumerate(found.notes, 1)}


def write_artifact(document: PolicyDocument, signer: Signer | None, path: Path) -> None:
    """Seal and write; a kill leaves the old file or the new one, never a part."""
    write_atomic(path, seal(document, signer))
