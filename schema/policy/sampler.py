"""SamplerBinding: the scheduler, its sigmas and the guidance that a policy was made for."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from msgspec import Meta, field

from budc.schema.fields import ConfigValue, Digest, Guidance, Name, Prompt, StepCount, Strict
from budc.schema.mask import MAX_STEPS
from budc.schema.policy.model import MAX_DENOISERS
from budc.schema.sigmas import MAX_SIGMA, Sigmas

_Level = Annotated[float, Meta(ge=0, le=MAX_SIGMA)]
NoiseLevels = Annotated[Sequence[_Level], Meta(min_length=2, max_length=MAX_STEPS + 1)]
Timesteps = Annotated[Sequence[_Level], Meta(min_length=1, max_length=MAX_STEPS)]


class NegativePrompt(Strict, frozen=True, kw_only=True):
    """The negative prompt of the calibration prompts: one for all of them, or one that varied between them."""

    rule: Literal["fixed", "varied"]
    text: Prompt | None = None
    """What a run must use, where it is fixed; may be empty."""


class Expert(Strict, frozen=True, kw_only=True):
    """A denoiser that takes over from the one before it, from `first_step` on."""

    denoiser: Name
    """One of `ModelBinding.denoisers`."""
    first_step: Annotated[int, Meta(ge=1, le=MAX_STEPS - 1)]
    """The first step that it runs, counted from 0; always computed."""
    guidance: Guidance
    """Guidance scale of its steps."""


class SamplerBinding(Strict, frozen=True, kw_only=True):
    """The sampler that the policy was made for."""

    scheduler: Name
    """Class name."""
    config: Annotated[Mapping[Name, ConfigValue], Meta(max_length=256)]
    """The scheduler's settings that decide its output; no private keys."""
    config_digest: Digest
    """`budc.schema.canonical.digest(config)`."""
    steps: StepCount
    sigmas: NoiseLevels
    """`steps + 1` noise levels, terminal value included."""
    timesteps: Timesteps
    """`steps` values, what the transformer is given; terminal value not included."""
    guidance: Guidance
    """Guidance scale; of the first denoiser where there are several."""
    guidance_rule: Literal["classifier-free", "distilled", "none"]
    negative_prompt: NegativePrompt | None = None
    """Only with classifier-free guidance."""
    experts: Annotated[Sequence[Expert], Meta(max_length=MAX_DENOISERS - 1)] = field(default_factory=list)
    """Every denoiser after the first, in the order of `ModelBinding.denoisers`."""

    @property
    def first_steps(self) -> tuple[int, ...]:
        """The first step of every denoiser after the first."""
        return tuple(expert.first_step for expert in self.experts)

    def expert_at(self, step: int) -> int:
        """Return the index of the denoiser that runs at a step, 0 for the first."""
        return bisect_right(self.first_steps, step)

    def guidance_at(self, step: int) -> float:
        """Return the guidance scale of a step."""
        denoiser = self.expert_at(step)
        return self.experts[denoiser - 1].guidance if denoiser else self.guidance

    def schedule(self) -> Sigmas:
        """Return the sigmas as a validated schedule. Raises SemanticsViolation."""
        return Sigmas.of(self.sigmas)
