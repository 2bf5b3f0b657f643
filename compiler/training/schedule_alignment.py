"""Schedule alignment, the second stage of arXiv 2606.13496: sigmas alone are trained, mask and reuse stay.

    σ_k = first + (last - first) · cumsum(softmax(log gaps + offsets))        loss = mean squared error of final latents

The loss may be another, such as LPIPS of decoded frames (`budc.compiler.training.frame_loss`).

Settings are those of the authors' released configurations: Adam at 0.0005 on the log gaps, falling to zero along a
cosine; for FLUX.1-dev 100 samples in batches of 8 with gradients of norm 1 at most, for Wan2.1 200 samples one by one
with gradients of norm 0.2. Nothing judges the result: the last sigmas are taken.

Two differences. Where there are fewer samples, they are gone through again until there are as many. The gradient is
exact; the authors' code takes cached residuals as constants. Their weight decay, 0.0001 and less, is left out: it moves
no log gap by more than 0.0001.
"""

from __future__ import annotations

import math

from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet
from budc.compiler.training.losses import SampleLoss, squared_error
from budc.compiler.training.parameters import PolicyParameters
from budc.compiler.training.second_stage import configuration
from budc.compiler.training.trainer import TrainingResult, TrainingSettings, train
from budc.schema.policy import Policy

RATE = 5e-4
WARM_UP = 0.05
"""Share of the steps over which the learning rate rises."""


def training_settings(
    branches: int, samples: int, seed: int, loss: SampleLoss = squared_error
) -> TrainingSettings:
    """Return how to train a network of so many branches on so many samples."""
    chosen = configuration(branches)
    epochs = chosen.epochs(samples)
    return TrainingSettings(
        epochs,
        seed,
        chosen.batch,
        {"sigmas": RATE},
        warm_up=int(WARM_UP * epochs * math.ceil(samples / chosen.batch)),
        loss=loss,
        clip=chosen.clip,
        betas=(0.9, 0.999),
    )


def align_schedule(
    denoiser: Denoiser,
    policy: Policy,
    schedule: NoiseSchedule,
    training_set: TrainingSet,
    settings: TrainingSettings,
    journal: Journal,
    label: str,
) -> tuple[NoiseSchedule, TrainingResult]:
    """Return a policy's aligned schedule, and what its training was.

    Every epoch is in the journal under `label`. Steps stay with the denoiser that they belong to.

    Raises:
        DeviceMemory: the gradient of one sample does not fit into the memory of the device.
    """
    first_steps = denoiser.first_steps(schedule.timesteps)
    parameters = PolicyParameters(
        policy,
        schedule.scheduler,
        schedule.sigmas,
        schedule.timesteps,
        train_sigmas=True,
        first_steps=first_steps,
        train_coefficients=False,
    )
    training = train(denoiser, parameters, training_set, None, settings, journal, label)
    return parameters.noise_schedule(), training
