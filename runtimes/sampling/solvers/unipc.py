"""UniPC, the unified predictor-corrector (arXiv 2302.04867), for flow models, predicting x0.

With α = 1 - σ, λ = log α - log σ and m_k = x_k - σ_k v_k, step k corrects x_k by the velocity that was just
evaluated at it, then predicts x_{k+1} from the corrected sample and the last `solver_order` values of m:

    x_t = σ_t/σ_s x_s - α_t B (m_s + Σ_i ρ_i (m_i - m_s) / r_i)        B = e^h - 1, h = -(λ_t - λ_s)

A step is linear in (x, last, m_0, …, v), so its matrix is what the step makes of the unit vectors.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.sampling.solvers.settings import check_settings
from budc.schema.errors import UnsupportedModel
from budc.schema.policy import SamplerBinding

Vector = NDArray[np.float64]

_ACCEPTED: dict[str, tuple[object, ...]] = {
    "prediction_type": ("flow_prediction",),
    "use_flow_sigmas": (True,),
    "predict_x0": (True,),
    "solver_order": (1, 2, 3),
    "solver_type": ("bh2",),
    "solver_p": (None,),
    "lower_order_final": (True,),
    "thresholding": (False,),
    "use_karras_sigmas": (False,),
    "use_exponential_sigmas": (False,),
    "use_beta_sigmas": (False,),
    "rescale_betas_zero_snr": (False,),
}
_SCHEDULE = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "flow_shift",
    "timestep_spacing", "steps_offset", "final_sigmas_type", "use_dynamic_shifting", "time_shift_type",
    "sigma_min", "sigma_max", "shift_terminal", "dynamic_thresholding_ratio", "sample_max_value",
    "disable_corrector",
)  # fmt: skip


def unipc_matrices(sampler: SamplerBinding) -> NDArray[np.float64]:
    """Return (steps, 2 + order, 3 + order): x, the last sample and m_0, m_1, … newest first, then v.

    Raises:
        UnsupportedModel: a setting is not implemented; `settings.check_settings` names it.
    """
    check_settings(sampler, _ACCEPTED, _SCHEDULE)
    solver_order = int(sampler.config.get("solver_order", 2))  # type: ignore[arg-type]
    uncorrected = sampler.config.get("disable_corrector") or ()
    assert isinstance(uncorrected, Sequence)
    sigmas = [float(sigma) for sigma in sampler.sigmas]
    if sigmas[0] >= 1:
        raise UnsupportedModel(
            f"scheduler: UniPC cannot leave the noise level sigmas[0] = {sigmas[0]:g}, expected less than 1"
        )
    steps, order, matrices = sampler.steps, 0, []
    for k in range(steps):
        x, last, *memory, v = np.eye(3 + solver_order)
        m = x - sigmas[k] * v
        if k > 0 and k - 1 not in uncorrected:
            x = _update(last, memory, _levels(sigmas, k - 1, order), sigmas[k], after=m)
        memory = [m, *memory[:-1]]
        order = min(solver_order, steps - k, k + 1)
        following = _update(x, memory, _levels(sigmas, k, order), sigmas[k + 1])
        matrices.append(np.stack([following, x, *memory]))
    return np.stack(matrices)


def _levels(sigmas: Sequence[float], k: int, order: int) -> list[float]:
    """The noise levels of m_0, m_1, … at step k, as many as the order needs."""
    return [sigmas[k - i] for i in range(order)]


def _update(
    x: Vector, memory: Sequence[Vector], levels: Sequence[float], sigma: float, *, after: Vector | None = None
) -> Vector:
    """Move x from noise level `levels[0]` to `sigma`: predict (UniP), or correct (UniC) given m there.

    `memory` and `levels` belong together, newest first; the number of levels is the order.
    """
    start, origin = memory[0], _log_snr(levels[0])
    h = origin - _log_snr(sigma)
    ratios = [(origin - _log_snr(level)) / h for level in levels[1:]]
    changes = [(m - start) / ratio for m, ratio in zip(memory[1:], ratios, strict=False)]
    if after is not None:
        ratios, changes = [*ratios, 1.0], [*changes, after - start]
    mean = sum((w * change for w, change in zip(_weights(ratios, h), changes, strict=True)), start)
    return sigma / levels[0] * x - (1 - sigma) * math.expm1(h) * mean


def _weights(ratios: Sequence[float], h: float) -> Vector:
    """Return ρ, the solution of Σ_i ρ_i r_i^j = b_j for each j; a single one is 1/2, as in the paper's code."""
    count = len(ratios)
    if count < 2:
        return np.full(count, 0.5)
    powers = np.array([[ratio**j for ratio in ratios] for j in range(count)])
    return np.linalg.solve(powers, _moments(h, count))


def _moments(h: float, count: int) -> Vector:
    """Return b_j = (j + 1)! φ_{j+2}(h) h / (e^h - 1), where φ_{j+1} = (φ_j - 1/j!) / h and φ_0 = e^h."""
    growth = math.expm1(h)
    moments, phi, factorial = [], growth / h - 1, 1
    for j in range(count):
        moments.append(phi * factorial / growth)
        factorial *= j + 2
        phi = phi / h - 1 / factorial
    return np.array(moments)


def _log_snr(sigma: float) -> float:
    """λ = log((1 - σ) / σ), infinite where no noise is left."""
    return math.log1p(-sigma) - math.log(sigma) if sigma > 0 else math.inf
