"""Pass 5, emit: what the passes found becomes one document, sealed and written atomically."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

import msgspec

from budc.compiler.request import CompileRequest
from budc.compiler.rollout import shared_policy
from budc.compiler.search.space import Space
from budc.compiler.study import Found
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
    space: Space,
    found: Found,
    quality: Quality,
    forwards: int,
) -> PolicyDocument:
    """Assemble the policy document; `forwards` are those of the full runs and the search together."""
    return PolicyDocument(
        schema_version=SCHEMA_VERSION,
        name=request.name or f"{profile.name}-nfe{space.nfe}",
        revision=request.revision,
        issued_at=issue_time(),
        model=binding,
        sampler=sampler,
        shape=output_shape(profile),
        budget=Budget(
            requested=request.budget, nfe=space.nfe, branches=dict.fromkeys(profile.branches, space.nfe)
        ),
        policy=shared_policy(found.candidate.mask, found.candidate.predictor, profile.branches),
        quality=quality,
        search=Search(
            algorithm=request.search,
            seed=request.seed,
            candidates=found.candidates,
            forwards=forwards,
            settings={"calibrationLoss": found.loss, **msgspec.to_builtins(space.defaults)},
            versions=versions(),
        ),
    )


def write_artifact(document: PolicyDocument, signer: Signer | None, path: Path) -> None:
    """Seal and write; a kill leaves the old file or the new one, never a part."""
    write_atomic(path, seal(document, signer))
