"""Shapes: the sizes of output for which a policy was measured, and of the images that it is made from."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta, field

from budc.schema.fields import Pixels, Strict
from budc.schema.policy.branches import BranchPolicy
from budc.schema.policy.quality import Quality
from budc.schema.policy.sampler import NoiseLevels, Timesteps


class Shape(Strict, frozen=True, kw_only=True):
    """The size and precision of output for which quality was measured."""

    height: Pixels
    width: Pixels
    frames: Pixels
    """1 for images."""
    dtype: Literal["float32", "bfloat16", "float16"]
    text_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Padded length of the text that the transformer sees."""


ImageRole = Literal["first-frame", "last-frame", "reference"]


class ConditioningImage(Strict, frozen=True, kw_only=True):
    """An image that each sample is made from, beside its prompt."""

    role: ImageRole
    height: Pixels | None = None
    width: Pixels | None = None
    """As the model sees it; the size of the output if unset."""


class FurtherShape(Strict, frozen=True, kw_only=True):
    """A further size of output for the same masks, with its own report. Dtype and text length are those of `Shape`."""

    height: Pixels
    width: Pixels
    frames: Pixels
    quality: Quality
    sigmas: NoiseLevels | None = None
    timesteps: Timesteps | None = None
    """Sigmas and timesteps of this size, where they are not the sampler's; both or neither."""
    branches: Annotated[Sequence[BranchPolicy], Meta(max_length=16)] = field(default_factory=list)
    """Predictors of this size, where they are not the policy's; the same branches and masks in the same order."""
