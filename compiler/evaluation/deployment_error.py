"""What an engine's rule of reuse loses: a policy as it is and as the engine runs it, both by budc's own runtime.

The engine itself is not run. Its mask and its rule are, on the model and the scheduler of the policy.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import reference_set, stored_latents
from budc.compiler.models.model import load_model
from budc.compiler.rollouts.metrics import latent_errors, latent_metric
from budc.compiler.storage.journal import Journal
from budc.policies.deployment import calibrated
from budc.policies.profile import ModelProfile, find_weights
from budc.policies.prompt_sets import PromptSource, held_out_samples
from budc.runtimes.admission.additions import DEPLOYMENT, check_additions
from budc.runtimes.sampling.devices import find_device
from budc.runtimes.targets.deployment import Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.runtimes.targets.registry import first_blocks_of


class DeploymentErrors(NamedTuple):
    """Squared errors of final latents, geometric means over held-out prompts; 0 where one of them has none."""

    samples: int
    policy: float
    """Of the policy, against the full run."""
    deployed: float
    """Of the policy as the engine runs it, against the full run."""
    between: float
    """Of one against the other."""


@dataclass(frozen=True)
class DeploymentRun:
    """What to measure: a deployment for `target`, on the model of `profile`.

    `folder` is that of the weights, by default the package's or the hub cache's.
    """

    target: DeploymentTarget
    deployment: Deployment
    profile: ModelProfile
    folder: Path | None
    samples: int
    device: str | None = None


def deployment_errors(run: DeploymentRun) -> DeploymentErrors:
    """Run the policy, what the engine makes of it, and every step, on held-out prompts of the profile.

    Raises:
        UnsupportedVersion: the policy uses what cannot be computed here, such as adapters.
        WeightsMissing: the weights are not here.
        UsageError: there is no such device, or there are not so many prompts.
    """
    document = run.deployment.document
    check_additions(document, DEPLOYMENT)
    device = find_device(run.device)
    profile = calibrated(run.profile, document)
    model = load_model(profile, find_weights(profile, run.folder), device)
    samples = held_out_samples(profile, PromptSource(None, run.samples))
    sampler = document.sampler
    aligned = document.search.settings.get("aligned") is True
    engines = model.sampler(sampler.steps) if aligned and not run.target.sigmas else sampler
    with tempfile.TemporaryDirectory(prefix="budc-export-") as name, Journal(Path(name), "export") as journal:
        rollout = PipelineRollout(model, first_blocks=first_blocks_of(document))
        full = reference_set(rollout, model.sampler(sampler.steps), samples, journal, "every step")
        own = stored_latents(rollout, document.policy, sampler, full.conditions, journal, "policy")
        engine = PipelineRollout(model, first_blocks=run.target.first_blocks)
        deployed = stored_latents(engine, run.deployment.policy, engines, full.conditions, journal, "engine")
    return DeploymentErrors(
        samples=len(samples),
        policy=_mean(own, full.latents),
        deployed=_mean(deployed, full.latents),
        between=_mean(deployed, own),
    )


def _mean(latents: Tensor, reference: Tensor) -> float:
    return latent_metric(latent_errors(latents, reference)).geometric_mean or 0.0
