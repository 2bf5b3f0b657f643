"""The names that quality reports use: metrics, baselines and objectives. Each is written here and nowhere else."""

from collections.abc import Mapping
from typing import Final

LATENT_MSE: Final = "latent-mse"
"""Mean squared error of the final latents against the full run's; lower is better."""
PSNR: Final = "psnr"
"""Of decoded frames, dB; higher is better."""

FULL: Final = "full"
"""Every step computed."""
UNIFORM: Final = "uniform"
"""Evenly spread computed steps, plain reuse, at the policy's NFE."""
FEWER_STEPS: Final = "fewer-steps"
"""The same solver with as many steps as the policy has evaluations, nothing cached."""
FROZEN: Final = "frozen"
"""A transferred policy with its coefficients as they came."""
NATIVE: Final = "native"
"""A policy searched on the target of a transfer itself."""

OBJECTIVES: Final[Mapping[str, str]] = {"mean": f"{LATENT_MSE}-mean", "log-mean": f"{LATENT_MSE}-log-mean"}
"""What a search minimises -> its name in a report."""
