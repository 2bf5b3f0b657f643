"""A model's profile as it is deployed: with the user's own settings, or with those that a policy was calibrated for."""

from __future__ import annotations

import msgspec

from budc.option_names import option
from budc.policies.profile import ModelProfile
from budc.schema.errors import UsageError
from budc.schema.fields import Prompt
from budc.schema.policy import PolicyDocument


def deployed(profile: ModelProfile, *, negative: str | None = None) -> ModelProfile:
    """Return the profile with the settings that are given. `negative` is the negative prompt.

    Raises:
        UsageError: a setting that the model does not have, or that an artifact cannot record.
    """
    if negative is not None:
        _check_negative(profile, negative)
        profile = _with_negative(profile, negative)
    return profile


def calibrated(profile: ModelProfile, document: PolicyDocument) -> ModelProfile:
    """Return the profile with the shape and the negative prompt for which a policy was measured.

    A negative prompt that varied is left as the profile has it.

    Raises:
        UnsupportedModel: the policy is for a network without a pipeline.
    """
    shape, negative = document.pipeline().shape, document.sampler.negative_prompt
    if negative is not None and negative.text is not None:
        profile = _with_negative(profile, negative.text)
    return msgspec.structs.replace(
        profile,
        height=shape.height,
        width=shape.width,
        frames=shape.frames,
        dtype=shape.dtype,
        text_tokens=shape.text_tokens or profile.text_tokens,
    )


def _with_negative(profile: ModelProfile, negative: str) -> ModelProfile:
    prompts = msgspec.structs.replace(profile.prompts, negative=negative)
    return msgspec.structs.replace(profile, prompts=prompts)


def _check_negative(profile: ModelProfile, negative: str) -> None:
    if profile.guidance_rule != "classifier-free":
        raise UsageError(
            f"{option('negative')}: {profile.name} has no negative prompt (its guidance is {profile.guidance_rule})",
            remedy="leave it out",
        )
    try:
        msgspec.convert(negative, Prompt)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"{option('negative')}: an artifact cannot record it: {error}",
            remedy="give one line of at most 8192 characters, none of them hidden",
        ) from error
