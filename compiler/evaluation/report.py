"""The quality report: a policy on held-out prompts, beside what needs no search.

Baselines: the uniform mask with plain reuse, and the same solver with as many steps as the policy has
evaluations (nothing cached), both at the policy's NFE; and the reference run itself. All are run as they are deployed,
by the scheduler itself, and nothing was selected on these prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import ReferenceSet, stored_latents
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.metrics import latent_errors, latent_metric, psnr_metric, psnrs
from budc.compiler.rollouts.policies import full_policy, shared_policy
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.runtimes.sampling.device_memory import device_memory
from budc.schema.mask import StepMask
from budc.schema.policy import REPLAY_TOLERANCE, Baseline, Metric, Policy, PromptSet, Quality, SamplerBinding
from budc.schema.predictor import Predictor
from budc.schema.report_names import FEWER_STEPS, FULL, UNIFORM

_WITHOUT_FRAMES = "use a device with more memory, or a smaller shape in the profile"


@dataclass(frozen=True)
class SampledPolicy:
    """A policy and the sampler that it runs on."""

    policy: Policy
    sampler: SamplerBinding


@dataclass(frozen=True)
class Evaluator:
    """Measures policies on held-out prompts, against the reference run of these by the sampler `full`."""

    rollout: PipelineRollout
    full: SamplerBinding
    held_out: ReferenceSet
    journal: Journal

    def quality(
        self,
        policy: SampledPolicy,
        nfe: int,
        objective: str,
        calibration: PromptSet,
        beside: Mapping[str, SampledPolicy] | None = None,
    ) -> Quality:
        """Measure a policy and the baselines.

        Args:
            policy: what is reported.
            nfe: its evaluations a branch, which the baselines have too.
            objective: what it was selected by, for the report.
            calibration: the prompts that it was selected on, for the report.
            beside: further policies of the same NFE, by the name of their baseline.
        """
        metrics = self._measured({"policy": policy, **(beside or {}), **self._baselines(nfe)}, nfe)
        reference = self.held_out.latents
        exact = [latent_metric(latent_errors(reference, reference))]
        return Quality(
            objective=objective,
            calibration=calibration,
            held_out=self.held_out.prompt_set(),
            metrics=metrics.pop("policy"),
            baselines=[
                *(Baseline(name=name, nfe=nfe, metrics=measured) for name, measured in metrics.items()),
                Baseline(name=FULL, nfe=self.full.steps, metrics=exact),
            ],
            replay_tolerance=REPLAY_TOLERANCE,
        )

    def _baselines(self, nfe: int) -> dict[str, SampledPolicy]:
        model, full = self.rollout.model, self.full
        branches = model.profile.branches
        mask = StepMask.uniform(full.steps, nfe).through(full.first_steps)
        return {
            UNIFORM: SampledPolicy(shared_policy(mask, Predictor.plain_reuse(mask), branches), full),
            FEWER_STEPS: SampledPolicy(full_policy(nfe, branches), model.sampler(nfe)),
        }

    def _measured(self, policies: Mapping[str, SampledPolicy], nfe: int) -> dict[str, list[Metric]]:
        held_out, journal = self.held_out, self.journal
        latents = {
            name: stored_latents(
                self.rollout,
                sampled.policy,
                sampled.sampler,
                held_out.conditions,
                journal,
                f"held-out {nfe} {name}",
            )
            for name, sampled in policies.items()
        }
        levels = frame_levels(self.rollout.model, latents, held_out.latents, journal, f"frames {nfe}")
        return {
            name: [latent_metric(latent_errors(final, held_out.latents)), psnr_metric(levels[name])]
            for name, final in latents.items()
        }


def frame_levels(
    model: LoadedModel, latents: Mapping[str, Tensor], reference: Tensor, journal: Journal, label: str
) -> dict[str, list[float]]:
    """Return the PSNR of every policy's frames against the reference run's, dB, per sample.

    One sample is decoded at a time: a clip of a real model is hundreds of megabytes.

    Raises:
        DeviceMemory: the VAE or one sample does not fit into the device's memory, even in tiles.
    """
    with device_memory("the VAE", _WITHOUT_FRAMES):
        decode = model.adapter.decoder(model.folder, model.profile, model.device)
    levels: dict[str, list[float]] = {name: [] for name in latents}
    with progress("held-out frames", len(reference)) as bar:
        for index in range(len(reference)):
            key = f"{label} {index}"
            sample_levels = journal.get(key, list[float], lambda found: len(found) == len(latents))
            if sample_levels is None:
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
