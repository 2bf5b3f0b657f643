"""The profile of the model that an artifact is for.

A policy for a model of the user's own is also run by people who do not have the profile that it was compiled with. What
a run needs is then taken from the artifact.
"""

from __future__ import annotations

import msgspec

from budc.policies.deployment import quantized_as
from budc.policies.model_choice import choose_model
from budc.policies.profile import ModelProfile, load_profile, profile_names
from budc.schema.errors import UnsupportedModel
from budc.schema.policy import PolicyDocument


def profile_of(document: PolicyDocument, choice: str | None = None) -> ModelProfile:
    """Return the profile of the model that a policy was made for: the chosen one (`choose_model`), or the shipped one
    of its name, or else what the policy says of it.

    Raises:
        UnsupportedModel: the profile is of another pipeline class, or the policy's is not known; or it was made for
            a network without a pipeline.
        BudcError: see `choose_model`.
    """
    model = document.pipeline()
    if choice is not None:
        profile = choose_model(choice)
    elif model.profile in profile_names():
        profile = load_profile(model.profile)
    else:
        profile = profile_from_artifact(document)
    if profile.pipeline_class != model.pipeline_class:
        raise UnsupportedModel(
            f"{document.name} is a policy for a {model.pipeline_class}, "
            f"but the model profile {profile.name} is a {profile.pipeline_class}"
        )
    return quantized_as(profile, document)


def profile_from_artifact(document: PolicyDocument) -> ModelProfile:
    """Return the profile that a policy's document describes.

    Prompts for comparisons are those of a shipped model of the same pipeline: a policy lists its own by digest alone.

    Raises:
        UnsupportedModel: no shipped model has its pipeline; or it was made for a network without one.
    """
    pipeline, model, sampler = document.pipeline(), document.model, document.sampler
    count = len(model.denoisers)
    shipped = map(load_profile, profile_names())
    base = next(
        (p for p in shipped if p.pipeline_class == pipeline.pipeline_class and len(p.denoisers) == count),
        None,
    )
    if base is None:
        raise UnsupportedModel(
            f"{document.name} is a policy for a {pipeline.pipeline_class} of {count} denoisers, which this release "
            "does not know"
        )
    shape, negative = pipeline.shape, sampler.negative_prompt
    return msgspec.structs.replace(
        base,
        name=pipeline.profile,
        title=pipeline.profile,
        family=model.family,
        denoisers={denoiser.name: denoiser.class_name for denoiser in model.denoisers},
        scheduler=sampler.scheduler,
        scheduler_config={
            name: value
            for name, value in sampler.config.items()
            if isinstance(value, bool | int | float | str)
        },
        steps=sampler.steps,
        guidance=float(sampler.guidance),
        guidance_rule=sampler.guidance_rule,
        branches=tuple(name for branch in document.policy.branches for name in branch.names),
        height=shape.height,
        width=shape.width,
        frames=shape.frames,
        text_tokens=shape.text_tokens,
        dtype=shape.dtype,
        repository="",
        licence="not stated",
        size_gb=0.0,
        embedded="",
        parameters=0.0,
        architecture={},
        fused=None,
        prompts=msgspec.structs.replace(
            base.prompts, negative=(negative.text or "") if negative else base.prompts.negative
        ),
    )
