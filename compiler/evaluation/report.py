"""Pass 4, evaluate: the policy on held-out prompts, beside what anyone could have had without a search.

Baselines: the uniform mask with plain reuse, and the same solver with as many steps as the policy has
evaluations (nothing cached), both at the policy's NFE; and the full run itself. All are run as they are deployed,
by the scheduler itself, and nothing was selected on these prompts.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import ReferenceSet, stored_latents
from budc.compiler.models.model import LoadedModel
from budc.compiler.rollouts.metrics import latent_errors, latent_metric, psnr_metric, psnrs
from budc.compiler.rollouts.policies import full_policy, shared_policy
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.schema.mask import StepMask
from budc.schema.policy import REPLAY_TOLERANCE, Baseline, Metric, Policy, PromptSet, Quality, SamplerBinding
from budc.schema.predictor import Predictor
from budc.schema.report_names import FEWER_STEPS, FULL, UNIFORM


def evaluate(
    policy: Policy,
    sampler: SamplerBinding,
    nfe: int,
    objective: str,
    calibration: PromptSet,
    rollout: PipelineRollout,
    full: SamplerBinding,
    held_out: ReferenceSet,
    journal: Journal,
    beside: Mapping[str, tuple[Policy, SamplerBinding]] | None = None,
) -> Quality:
    """Measure a policy on its sampler, and the baselines, against full runs by the sampler `full`.

    `beside` holds further policies of the same NFE by name, each with its sampler.
    """
    branches, conditions = rollout.model.profile.branches, held_out.conditions
    mask = StepMask.uniform(full.steps, nfe).through(full.first_steps)
    runs = {
        "policy": (policy, sampler),
        UNIFORM: (shared_policy(mask, Predictor.plain_reuse(mask), branches), full),
        FEWER_STEPS: (full_policy(nfe, branches), rollout.model.sampler(nfe)),
    }
    runs = {"policy": runs["policy"], **(beside or {}), **runs}
    latents = {
        name: stored_latents(rollout, followed, schedule, conditions, journal, f"held-out {nfe} {name}")
        for name, (followed, schedule) in runs.items()
    }
    levels = frame_levels(rollout.model, latents, held_out.latents, journal, f"frames {nfe}")
    metrics: dict[str, list[Metric]] = {
        name: [latent_metric(latent_errors(found, held_out.latents)), psnr_metric(levels[name])]
        for name, found in latents.items()
    }
    exact = [latent_metric(latent_errors(held_out.latents, held_out.latents))]
    return Quality(
        objective=objective,
        calibration=calibration,
        held_out=held_out.prompt_set(),
        metrics=metrics["policy"],
        baselines=[
            *(Baseline(name=name, nfe=nfe, metrics=metrics[name]) for name in runs if name != "policy"),
            Baseline(name=FULL, nfe=full.steps, metrics=exact),
        ],
        replay_tolerance=REPLAY_TOLERANCE,
    )


def frame_levels(
    model: LoadedModel, latents: Mapping[str, Tensor], reference: Tensor, journal: Journal, label: str
) -> dict[str, list[float]]:
    """Return the PSNR of every method's frames against the full run's, dB, per sample.

    One sample is decoded at a time: a clip of a real model is hundreds of megabytes.
    """
    decode = model.adapter.decoder(model.folder, model.profile, model.device)
    levels: dict[str, list[float]] = {name: [] for name in latents}
    with progress("held-out frames", len(reference)) as bar:
        for index in range(len(reference)):
            key = f"{label} {index}"
            known = journal.get(key)
            if known is None:
                full = decode(reference[index : index + 1])
                known = [
                    level
                    for found in latents.values()
                    for level in psnrs(decode(found[index : index + 1]), full)
                ]
                journal.put(key, known)
            for name, level in zip(latents, known, strict=True):
                levels[name].append(level)
            bar.advance()
    return levels
