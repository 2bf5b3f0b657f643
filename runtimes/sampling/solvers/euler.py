"""Euler's method on the flow ODE: x_{k+1} = x_k + (σ_{k+1} - σ_k) v_k. Remembers nothing."""

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.sampling.solvers.settings import check_settings
from budc.schema.policy import SamplerBinding

_ACCEPTED = {"stochastic_sampling": (False,), "invert_sigmas": (False,)}
_SCHEDULE = (
    "num_train_timesteps", "shift", "use_dynamic_shifting", "base_shift", "max_shift", "base_image_seq_len",
    "max_image_seq_len", "shift_terminal", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",
    "time_shift_type",
)  # fmt: skip


def euler_matrices(sampler: SamplerBinding) -> NDArray[np.float64]:
    """Return (steps, 1, 2): the weights of x and v. Raises UnsupportedModel."""
    check_settings(sampler, _ACCEPTED, _SCHEDULE)
    sigmas = np.asarray(sampler.sigmas, np.float64)
    return np.stack([np.ones(sampler.steps), np.diff(sigmas)], axis=-1)[:, None, :]
