"""A model's profile as it is deployed: with the user's own settings, or with those that a policy was calibrated for."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from budc.option_names import option
from budc.policies.profile import ModelProfile
from budc.policies.quantization import check_kind
from budc.schema.errors import UnsupportedModel, UsageError
from budc.schema.fields import Prompt
from budc.schema.policy import PolicyDocument

SCHEDULERS = ("DPMSolverMultistepScheduler", "FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler")
"""Classes of schedulers for flow matching that policies can be searched for."""

_LARGEST_SIZE = 65536
_LONGEST_TEXT = 512
"""The longest text that every pipeline of diffusers with padded text takes."""
_FIXED_TEXT = ("WanImageToVideoPipeline",)
"""Pipelines whose network takes every token after so many for one of the image."""
_LARGEST_GUIDANCE = 1000.0
_OFF: dict[str, float] = {"ZImagePipeline": 0.0}
"""The scale up to which a pipeline leaves classifier-free guidance out, where that is not 1."""


class Deployment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the user's own. Fields left `None` take the profile's value."""

    height: int | None = None
    width: int | None = None
    frames: int | None = None
    text_tokens: int | None = None
    """Tokens that the pipeline pads text to."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    guidance: float | None = None
    """Guidance scale; of the first denoiser where there are several."""
    scheduler: str | None = None
    """Class name, one of `SCHEDULERS`."""
    quantize: str | None = None
    """How the denoisers are quantised, see `budc.policies.quantization`."""
    negative: str | None = None
    """The negative prompt of all prompts that have none of their own."""

    def deployed(self, profile: ModelProfile) -> ModelProfile:
        """Return the profile with these settings.

        Raises:
            UsageError: one that the model does not have, or that an artifact cannot record.
        """
        self._check_size(profile)
        self._check_text(profile)
        self._check_guidance(profile)
        if self.scheduler is not None and self.scheduler not in SCHEDULERS:
            raise UsageError(
                f"{option('scheduler')}: {self.scheduler!r} is none that policies can be searched for",
                remedy=f"use one of {', '.join(SCHEDULERS)}",
            )
        own = {
            name: value
            for name in ("height", "width", "frames", "text_tokens", "dtype", "guidance", "scheduler")
            if (value := getattr(self, name)) is not None
        }
        profile = msgspec.structs.replace(profile, **own)
        if self.quantize is not None:
            check_kind(self.quantize)
            profile = msgspec.structs.replace(profile, quantization=self.quantize)
        if self.negative is None:
            return profile
        _check_negative(profile, self.negative)
        return _with_negative(profile, self.negative)

    def _check_size(self, profile: ModelProfile) -> None:
        for name in ("height", "width", "frames"):
            size = getattr(self, name)
            if size is not None and not 1 <= size <= _LARGEST_SIZE:
                raise UsageError(f"{option(name)}: is {size}, expected 1 to {_LARGEST_SIZE}")
        if self.frames not in (None, 1) and profile.frames == 1:
            raise UsageError(f"{option('frames')}: {profile.name} makes images", remedy="leave it out")

    def _check_text(self, profile: ModelProfile) -> None:
        if self.text_tokens is None:
            return
        if profile.text_tokens is None:
            raise UsageError(
                f"{option('text-tokens')}: {profile.name} takes text of any length, and pads none",
                remedy="leave it out",
            )
        if profile.pipeline_class in _FIXED_TEXT and self.text_tokens != _LONGEST_TEXT:
            raise UsageError(
                f"{option('text-tokens')}: is {self.text_tokens}, {profile.name} takes {_LONGEST_TEXT} alone",
                remedy="leave it out",
            )
        if not 1 <= self.text_tokens <= _LONGEST_TEXT:
            raise UsageError(f"{option('text-tokens')}: is {self.text_tokens}, expected 1 to {_LONGEST_TEXT}")

    def _check_guidance(self, profile: ModelProfile) -> None:
        scale = self.guidance
        if scale is None:
            return
        if profile.guidance_rule == "none":
            raise UsageError(f"{option('guidance')}: {profile.name} is not guided", remedy="leave it out")
        least = (
            _OFF.get(profile.pipeline_class, 1.0) if profile.guidance_rule == "classifier-free" else -math.inf
        )
        if not (math.isfinite(scale) and least < scale <= _LARGEST_GUIDANCE and scale >= -_LARGEST_GUIDANCE):
            above = f"above {least:g}, up to" if math.isfinite(least) else "at most"
            raise UsageError(
                f"{option('guidance')}: is {scale:g}, expected {above} {_LARGEST_GUIDANCE:g}",
                remedy=f"the pipeline leaves guidance out at {least:g} and below"
                if math.isfinite(least)
                else "",
            )


def quantized_as(profile: ModelProfile, document: PolicyDocument) -> ModelProfile:
    """Return the profile with the quantisation that a policy was made for, or with none."""
    kinds = {item.quantization.kind if item.quantization else "" for item in document.model.denoisers}
    if len(kinds) > 1:
        raise UnsupportedModel(
            f"{document.name} has denoisers that are quantised by different kinds, which cannot be loaded here",
            remedy="load and quantise the pipeline yourself, then budc.apply",
        )
    return msgspec.structs.replace(profile, quantization=kinds.pop())


def calibrated(profile: ModelProfile, document: PolicyDocument) -> ModelProfile:
    """Return the profile with the shape, sampler, negative prompt and quantisation that a policy was measured for.

    A negative prompt that varied is left as the profile has it.

    Raises:
        UnsupportedModel: the policy is for a network without a pipeline.
    """
    shape, sampler = document.pipeline().shape, document.sampler
    profile = quantized_as(profile, document)
    if sampler.negative_prompt is not None and sampler.negative_prompt.text is not None:
        profile = _with_negative(profile, sampler.negative_prompt.text)
    experts = profile.experts
    if experts is not None and sampler.experts:
        experts = msgspec.structs.replace(experts, guidance=sampler.experts[0].guidance)
    return msgspec.structs.replace(
        profile,
        height=shape.height,
        width=shape.width,
        frames=shape.frames,
        dtype=shape.dtype,
        text_tokens=shape.text_tokens or profile.text_tokens,
        scheduler=sampler.scheduler,
        guidance=sampler.guidance,
        experts=experts,
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
