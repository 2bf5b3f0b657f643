"""A run without a policy: every step computed, on the schedule that the model's pipeline would set."""

from collections.abc import Sequence

import numpy as np
from msgspec.structs import replace

from budc.runtimes.exported.manifest import Manifest
from budc.runtimes.sampling.families import family_named
from budc.runtimes.sampling.solvers.schedules import plain_schedule
from budc.schema.policy import Policy, PolicyDocument


def plain_document(
    document: PolicyDocument, manifest: Manifest, steps: int, boundaries: Sequence[float] = ()
) -> PolicyDocument:
    """Return a document of `steps` computed steps, for the model and the guidance of `document`.

    `boundaries` are the noise levels, of 1, below which each denoiser after the first takes over.

    Raises:
        UnsupportedModel: the scheduler has no schedule without diffusers.
    """
    family = family_named(manifest.denoiser_class)
    rows, columns = manifest.latents[-2:]
    sigmas, timesteps = plain_schedule(document.sampler, steps, family, rows * columns // 4)
    train = float(document.sampler.config.get("num_train_timesteps", 1000))  # type: ignore[arg-type]
    times = np.asarray(timesteps, np.float32)
    experts = [
        replace(expert, first_step=int((times >= boundary * train).sum()))
        for expert, boundary in zip(document.sampler.experts, boundaries, strict=True)
    ]
    names = [name for branch in document.policy.branches for name in branch.names]
    computed: list[list[float]] = [[] for _ in range(steps)]
    return replace(
        document,
        sampler=replace(document.sampler, steps=steps, sigmas=sigmas, timesteps=timesteps, experts=experts),
        budget=replace(document.budget, nfe=steps, branches=dict.fromkeys(names, steps)),
        policy=Policy.of("trunk-residual", dict.fromkeys(names, computed)),
    )
