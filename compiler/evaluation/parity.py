"""Parity: how far a converted model is from its original under one policy.

    parity = measure_parity(model, document, converted, samples=4)
    check_parity(parity, "float32")

Held-out prompts are run under the policy from the same seeds in both forms, from the prompt to final latents, and
the original's latents are decoded in both. The original runs in PyTorch in float32, so that what differs is due to the
conversion and its dtype.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.precision import full_float32
from budc.compiler.evaluation.reference import encode_samples
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.metrics import largest_difference, relative_difference
from budc.policies.profile import read_prompts
from budc.policies.samples import HELD_OUT_SEED, samples_of
from budc.progress import progress, stage
from budc.schema.errors import CalibrationMismatch, ParityMismatch
from budc.schema.plural import counted
from budc.schema.policy import PolicyDocument, SamplerBinding

LATENT_TOLERANCE: Mapping[str, float] = {"float32": 1e-4, "float16": 2e-2}
"""Largest difference of final latents that is accepted, as a share of their largest value.

In float32 of the worst sample. In float16 of the median one: now and then rounding turns a prompt's picture into
another, and that is not the conversion's fault.
"""

FRAME_TOLERANCE = 1e-3
"""Largest difference of a frame's values, which are in 0..1; decoders are in float32 whatever the dtype."""


class Converted(Protocol):
    """A converted model under the policy."""

    def latents(self, prompt: str, seed: int) -> Tensor:
        """Return the final latents (1, …) of a prompt, float32."""

    def frames(self, latents: Tensor) -> Tensor:
        """Return the frames (1, 3, F, H, W) of final latents, in 0..1."""


@dataclass(frozen=True)
class Parity:
    """How far a converted model is from its original under one policy, in one value a sample."""

    latents: tuple[float, ...]
    """Largest difference of final latents over the largest value of the original's."""
    frames: tuple[float, ...]
    """Largest difference of a value in the frames that both decode from the original's latents."""

    @property
    def median(self) -> float:
        """Of the latents' differences; of two in the middle, the larger."""
        return statistics.median_high(self.latents)

    def __str__(self) -> str:
        return (
            f"{len(self.latents)} held-out prompts: final latents differ by at most {max(self.latents):.1e} of "
            f"their largest value (median {self.median:.1e}), frames of the same latents by {max(self.frames):.1e}"
        )


@full_float32()
def measure_parity(
    model: LoadedModel, document: PolicyDocument, converted: Converted, samples: int
) -> Parity:
    """Run `samples` held-out prompts in both forms.

    Args:
        model: the original, in float32.
        document: the policy that both run.
        converted: the converted model under the same policy.
        samples: prompts, from the first of the held-out set on.

    Raises:
        CalibrationMismatch: the model's sampler is not the one that the policy was made for.
    """
    profile = model.profile
    _check_sampler(model.sampler(document.sampler.steps), document.sampler)
    prompts = read_prompts(profile.prompts.held_out, samples)
    held_out = samples_of(prompts, profile.prompts.negative, HELD_OUT_SEED)
    stage("encode", counted(samples, "prompt"))
    conditions = encode_samples(model, held_out)
    with progress("parity", samples + 1) as bar:
        expected = PipelineRollout(model).run(document.policy, document.sampler, conditions, bar)
        model.denoisers.offload()
        decode = model.adapter.decoder(model.folder, profile, model.device)
        bar.advance("original run")
        latents: list[float] = []
        frames: list[float] = []
        for sample, wanted in zip(held_out, expected.split(1), strict=True):
            latents.append(relative_difference(converted.latents(sample.prompt, sample.seed), wanted))
            frames.append(largest_difference(converted.frames(wanted), decode(wanted)))
            bar.advance(f"latents differ by {max(latents):.1e}")
    return Parity(tuple(latents), tuple(frames))


def check_parity(parity: Parity, dtype: str) -> None:
    """Refuse a conversion that differs by more than its dtype explains. Raises ParityMismatch."""
    latents = max(parity.latents) if dtype == "float32" else parity.median
    for text, difference, accepted in (
        ("final latents differ by {:.1e} of their largest value", latents, LATENT_TOLERANCE[dtype]),
        ("frames of the same latents differ by {:.1e}", max(parity.frames), FRAME_TOLERANCE),
    ):
        if difference > accepted:
            raise ParityMismatch(
                f"{text.format(difference)} from PyTorch's over {len(parity.latents)} held-out prompts, "
                f"at most {accepted:.0e} is accepted in {dtype}"
            )


def _check_sampler(own: SamplerBinding, wanted: SamplerBinding) -> None:
    for field in ("scheduler", "config_digest"):
        mine, theirs = getattr(own, field), getattr(wanted, field)
        if mine != theirs:
            raise CalibrationMismatch(
                f"sampler.{field}: the policy was calibrated for {theirs}, the model's profile has {mine}"
            )
