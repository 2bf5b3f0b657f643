"""Emit: a search's result and its report become one document, sealed and written atomically."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from budc.compiler.compile_plan import CompilePlan, PlannedPolicy
from budc.compiler.selection.task import SearchResult, Settings
from budc.policies.conditioning_images import image_roles
from budc.policies.profile import ModelProfile
from budc.progress import stage
from budc.runtimes.targets.binding import target_of
from budc.schema.artifact import seal
from budc.schema.files import write_atomic
from budc.schema.policy import (
    SCHEMA_VERSION,
    Budget,
    ConditioningImage,
    ModelBinding,
    PolicyDocument,
    Quality,
    SamplerBinding,
    Search,
    Shape,
)
from budc.schema.printable import printable
from budc.schema.signers import Signer
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


def conditioning_images(profile: ModelProfile) -> list[ConditioningImage]:
    """Return what conditions each sample of a profile's pipeline beside its prompt, at the size of the output."""
    return [ConditioningImage(role=role) for role in image_roles(profile.pipeline_class)]


def make_document(
    plan: CompilePlan,
    planned: PlannedPolicy,
    binding: ModelBinding,
    sampler: SamplerBinding,
    result: SearchResult,
    quality: Quality,
) -> PolicyDocument:
    """Assemble the policy document of one budget."""
    profile = plan.target.profile
    evaluations = {name: sum(branch.mask) for branch in result.policy.branches for name in branch.names}
    return PolicyDocument(
        schema_version=SCHEMA_VERSION,
        name=planned.name,
        revision=plan.revision,
        issued_at=issue_time(),
        model=binding,
        sampler=plan.target.bound(sampler),
        shape=output_shape(profile),
        target=None if plan.engine is None else target_of(plan.engine),
        images=conditioning_images(profile),
        budget=Budget(
            requested=planned.budget,
            nfe=max(evaluations.values()),
            branches={name: evaluations[name] for name in profile.branches},
        ),
        policy=result.policy,
        quality=quality,
        search=Search(
            algorithm=plan.search,
            seed=plan.seed,
            candidates=result.candidates,
            forwards=result.forwards.total,
            settings={**result.settings, **_proxy(plan, result), **plan.target.prompt_files},
            versions=versions(),
        ),
    )


def _proxy(plan: CompilePlan, result: SearchResult) -> Settings:
    """Return the size at which masks were searched, as HEIGHTxWIDTHxFRAMES, and the forwards spent there."""
    if plan.proxy is None:
        return {}
    return {"proxy": "x".join(map(str, plan.proxy)), "proxyForwards": result.forwards.proxy}


def write_artifact(document: PolicyDocument, signer: Signer | None, path: Path) -> None:
    """Seal and write; a kill leaves the old file or the new one, never a part."""
    if signer is not None:
        # A key service or a token may take its time.
        stage("sign", document.name)
    content = seal(document, signer)
    stage("write", printable(str(path)))
    write_atomic(path, content)
