"""The quality report: a policy on held-out prompts, beside what needs no search.

Baselines: the uniform mask with plain reuse, and the same solver with as many steps as the policy has
evaluations (nothing cached), both at the policy's NFE; and the reference run itself. All are run as they are deployed,
by the scheduler itself, and nothing was selected on these prompts.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from torch import Tensor

from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import ReferenceSet, stored_latents
from budc.compiler.metrics.psnr import PSNR
from budc.compiler.metrics.summary import summary
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.metrics import latent_errors, latent_metric, psnrs
from budc.compiler.rollouts.policies import full_policy, shared_policy
from budc.compiler.rollouts.workers import ReportWorkers
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.runtimes.sampling.device_memory import device_memory
from budc.runtimes.sampling.devices import device_name
from budc.schema.mask import StepMask
from budc.schema.policy import REPLAY_TOLERANCE, Baseline, Policy, PromptSet, Quality, SamplerBinding
from budc.schema.predictor import Predictor
from budc.schema.report_names import FEWER_STEPS, FULL, UNIFORM

HELD_OUT_RUN = "held-out full"
"""What the journal calls the reference run of the held-out prompts."""
_WITHOUT_FRAMES = (
    "compile with --no-frames or a smaller --height and --width, or use a device with more memory"
)
_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class SampledPolicy:
    """A policy and the sampler that it runs on."""

    policy: Policy
    sampler: SamplerBinding


@dataclass(frozen=True)
class Generated:
    """The final latents (N, ...) of what is compared at one budget, on the held-out prompts: "policy" and baselines."""

    nfe: int
    latents: Mapping[str, Tensor]


class LoopTimes(NamedTuple):
    """Seconds of the denoising loop for a sample, of the full run and of a policy."""

    full: float
    policy: float
    device: str
    """In words, with how many samples were computed together."""


@dataclass(frozen=True)
class Evaluator:
    """Measures policies on held-out prompts, against the reference run of these by the sampler `full`.

    All policies of a sweep are rolled out before the first frame is decoded: the VAE is loaded once, when no denoiser
    is on the device. Without `frames` nothing is decoded, and the report has no PSNR.
    """

    rollout: PipelineRollout
    full: SamplerBinding
    held_out: ReferenceSet
    journal: Journal
    frames: bool = True

    def generate(
        self, policy: SampledPolicy, nfe: int, beside: Mapping[str, SampledPolicy] | None = None
    ) -> Generated:
        """Roll out a policy of `nfe` evaluations a branch and the baselines that have as many.

        `beside` are further policies of the same NFE, by the name of their baseline.
        """
        policies = {"policy": policy, **(beside or {}), **self._baselines(nfe)}
        return Generated(
            nfe,
            {
                name: stored_latents(
                    self.rollout,
                    sampled.policy,
                    sampled.sampler,
                    self.held_out.conditions,
                    self.journal,
                    f"held-out {nfe} {name}",
                )
                for name, sampled in policies.items()
            },
        )

    def loop_times(self, nfe: int) -> LoopTimes | None:
        """Return what the loops of the full run and of a policy took on the held-out prompts.

        The first chunk of each is left out, which warms up, and the rest that is smaller. None where no others were
        rolled out here, as there are too few prompts, or as an earlier call or workers did it.
        """
        passes = [self.rollout.seconds.get(label, []) for label in (HELD_OUT_RUN, f"held-out {nfe} policy")]
        samples = max((count for chunks in passes for count, _ in chunks), default=0)
        taken = [[seconds for count, seconds in chunks[1:] if count == samples] for chunks in passes]
        if not all(taken):
            return None
        full, policy = map(statistics.median, taken)
        device, batch = device_name(self.rollout.model.device), min(self.rollout.batch, samples)
        return LoopTimes(full, policy, f"{device}, in batches of {batch}" if batch > 1 else device)

    def report(self, generated: Sequence[Generated], objective: str, calibration: PromptSet) -> list[Quality]:
        """Return a report for each budget.

        Args:
            generated: what is compared at each budget.
            objective: what its policy was selected by, for the report.
            calibration: the prompts that it was selected on, for the report.
        """
        reference = self.held_out.latents
        levels = self._frame_levels(generated)
        exact = Baseline(
            name=FULL, nfe=self.full.steps, metrics=[latent_metric(latent_errors(reference, reference))]
        )
        reports = []
        for budget in generated:
            metrics = {
                name: [
                    latent_metric(latent_errors(final, reference)),
                    *([summary(PSNR, levels[budget.nfe, name])] if self.frames else []),
                ]
                for name, final in budget.latents.items()
            }
            reports.append(
                Quality(
                    objective=objective,
                    calibration=calibration,
                    held_out=self.held_out.prompt_set(),
                    metrics=metrics.pop("policy"),
                    baselines=[
                        *(
                            Baseline(name=name, nfe=budget.nfe, metrics=measured)
                            for name, measured in metrics.items()
                        ),
                        exact,
                    ],
                    replay_tolerance=REPLAY_TOLERANCE,
                )
            )
        return reports

    def _baselines(self, nfe: int) -> dict[str, SampledPolicy]:
        model, full = self.rollout.model, self.full
        branches = model.profile.branches
        mask = StepMask.uniform(full.steps, nfe).through(full.first_steps)
        return {
            UNIFORM: SampledPolicy(shared_policy(mask, Predictor.plain_reuse(mask), branches), full),
            FEWER_STEPS: SampledPolicy(full_policy(nfe, branches), model.sampler(nfe)),
        }

    def _frame_levels(self, generated: Sequence[Generated]) -> Mapping[tuple[int, str], list[float]]:
        if not self.frames:
            return {}
        latents = {
            (budget.nfe, name): final for budget in generated for name, final in budget.latents.items()
        }
        reference = self.held_out.latents
        if self.rollout.workers is not None:
            measure_elsewhere(self.rollout.workers, latents, reference, self.journal, "frames")
        return frame_levels(self.rollout.model, latents, reference, self.journal, "frames")


def measure_elsewhere(
    workers: ReportWorkers, latents: Mapping[_Key, Tensor], reference: Tensor, journal: Journal, label: str
) -> None:
    """Let other processes measure what `frame_levels` would, so that the journal has it."""
    named = {str(number): final for number, final in enumerate(latents.values())}
    missing = [index for index in range(len(reference)) if f"{label} {index}" not in journal.records]
    if not missing:
        return
    with progress("held-out frames", len(missing)) as bar:
        for records in workers.frames(label, named, reference, missing):
            for key, value in records.items():
                journal.put(key, value)
            bar.advance()


def frame_levels(
    model: LoadedModel,
    latents: Mapping[_Key, Tensor],
    reference: Tensor,
    journal: Journal,
    label: str,
    first: int = 0,
    shown: str = "held-out frames",
) -> dict[_Key, list[float]]:
    """Return the PSNR of frames against the reference run's, dB, per sample, for final latents (N, ...) under any key.

    One sample is decoded at a time: a clip of a real model is hundreds of megabytes. `first` is what the journal calls
    the first of them, `shown` the name of the pass.

    Raises:
        DeviceMemory: the VAE or one sample does not fit into the device's memory, even in tiles.
    """
    levels: dict[_Key, list[float]] = {name: [] for name in latents}
    decode: Callable[[Tensor], Tensor] | None = None
    with progress(shown, len(reference)) as bar:
        for index in range(len(reference)):
            key = f"{label} {first + index}"
            sample_levels = journal.get(key, list[float], lambda found: len(found) == len(latents))
            if sample_levels is None:
                decode = decode or _decoder(model)
                with device_memory("decoding a sample", _WITHOUT_FRAMES):
                    frames = decode(reference[index : index + 1])
                    sample_levels = [
                        level
                        for final in latents.values()
                        for level in psnrs(decode(final[index : index + 1]), frames)
                    ]
                journal.put(key, sample_levels)
            for name, level in zip(latents, sample_levels, strict=True):
                levels[name].append(level)
            bar.advance()
    return levels


def _decoder(model: LoadedModel) -> Callable[[Tensor], Tensor]:
    model.denoisers.offload()
    with device_memory("the VAE", _WITHOUT_FRAMES):
        return model.adapter.decoder(model.folder, model.profile, model.device)
