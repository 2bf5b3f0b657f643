"""Pass 4, evaluate: the policy on held-out prompts, beside what anyone could have had without a search.

Baselines: the uniform mask with plain reuse, and the same solver with as many steps as the policy has
evaluations (nothing cached), both at the policy's NFE; and the full run itself.
"""

from __future__ import annotations

from torch import Tensor

from budc.compiler.calibrate import Reference, kept_latents
from budc.compiler.journal import Journal
from budc.compiler.metrics import latent_errors, latent_metric, psnr_metric, psnrs
from budc.compiler.rollout import Roller, full_policy, shared_policy
from budc.compiler.search import Candidate
from budc.schema.mask import StepMask
from budc.schema.policy import Baseline, Metric, PromptSet, Quality, SamplerBinding


def _frames(roller: Roller, latents: Tensor) -> Tensor:
    model = roller.model
    return model.adapter.decode(model.folder, latents, model.device)


def evaluate(
    candidate: Candidate,
    objective: str,
    calibration: PromptSet,
    roller: Roller,
    sampler: SamplerBinding,
    held_out: Reference,
    journal: Journal,
) -> Quality:
    """Measure the winner and the baselines on the held-out prompts."""
    branches, nfe, conditions = roller.model.profile.branches, candidate.mask.nfe, held_out.conditions
    uniform = Candidate.plain(sampler.steps, StepMask.uniform(sampler.steps, nfe).compute_steps)
    runs = {
        "policy": (shared_policy(candidate.mask, candidate.predictor, branches), sampler),
        "uniform": (shared_policy(uniform.mask, uniform.predictor, branches), sampler),
        "fewer-steps": (full_policy(nfe, branches), roller.model.sampler(nfe)),
    }
    full = _frames(roller, held_out.latents)
    metrics: dict[str, list[Metric]] = {}
    for name, (policy, schedule) in runs.items():
        latents = kept_latents(roller, policy, schedule, conditions, journal, f"held-out {name}")
        errors = latent_errors(latents, held_out.latents)
        metrics[name] = [latent_metric(errors), psnr_metric(psnrs(_frames(roller, latents), full))]
    exact = [latent_metric([0.0] * len(conditions))]
    return Quality(
        objective=objective,
        calibration=calibration,
        held_out=held_out.prompt_set(),
        metrics=metrics["policy"],
        baselines=[
            Baseline(name="uniform", nfe=nfe, metrics=metrics["uniform"]),
            Baseline(name="fewer-steps", nfe=nfe, metrics=metrics["fewer-steps"]),
            Baseline(name="full", nfe=sampler.steps, metrics=exact),
        ],
    )
