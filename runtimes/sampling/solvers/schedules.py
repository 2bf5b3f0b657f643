"""The schedules that pipelines run without a policy, for any number of steps, in numpy.

The settings are those that a policy keeps of its scheduler. Sigmas agree with those of diffusers to single precision.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from budc.runtimes.sampling.families import Family
from budc.schema.errors import UnsupportedModel
from budc.schema.policy import SamplerBinding

Floats = NDArray[np.float64]

_NEAR_ONE = 1e-6
"""UniPC cannot leave a noise level of 1; diffusers begins this far below it."""


def plain_schedule(
    sampler: SamplerBinding, steps: int, family: Family, image_tokens: int | None = None
) -> tuple[list[float], list[float]]:
    """Return (sigmas, timesteps) of `steps` steps, as the family's pipeline sets them on the scheduler of a policy.

    `image_tokens` is needed where the scheduler shifts by resolution.

    Raises:
        UnsupportedModel: the scheduler, or a setting of it, has no schedule here; the message names it.
    """
    if sampler.scheduler not in _SCHEDULES:
        raise UnsupportedModel(
            f"scheduler: {sampler.scheduler} has no schedule without diffusers, only {', '.join(_SCHEDULES)}",
            remedy="run the policy with the diffusers runtime",
        )
    config = sampler.config
    for name in ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas"):
        if config.get(name):
            raise UnsupportedModel(
                f"scheduler: {name} = {config[name]} has no schedule without diffusers",
                remedy="run the policy with the diffusers runtime",
            )
    return _SCHEDULES[sampler.scheduler](config, steps, family, image_tokens)


def resolution_shift(config: Mapping[str, Any], image_tokens: int) -> float:
    """Return mu, linear in the number of image tokens between the config's two anchors (SD3 paper, 5.3.2)."""
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    base, top = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (top - base) / (high - low)
    return float(image_tokens * slope + (base - slope * low))


def _euler(
    config: Mapping[str, Any], steps: int, family: Family, image_tokens: int | None
) -> tuple[list[float], list[float]]:
    train, shift = int(config.get("num_train_timesteps", 1000)), float(config.get("shift", 1.0))
    dynamic = bool(config.get("use_dynamic_shifting"))
    # Where a pipeline passes a number of steps, they are spread over the levels of training, which are shifted too.
    lowest = 1 / steps if family.sigmas != "none" else 1 / train if dynamic else _shifted(1 / train, shift)
    factor = _dynamic_shift(config, image_tokens) if dynamic else shift
    sigmas = _shifted(np.linspace(1.0, lowest, steps), factor)
    return _single(_stretched(sigmas, config), [0.0], train)


def _unipc(
    config: Mapping[str, Any], steps: int, family: Family, image_tokens: int | None
) -> tuple[list[float], list[float]]:
    train = int(config.get("num_train_timesteps", 1000))
    if not config.get("use_flow_sigmas"):
        raise UnsupportedModel(
            "scheduler: use_flow_sigmas = False has no schedule without diffusers",
            remedy="run the policy with the diffusers runtime",
        )
    dynamic = bool(config.get("use_dynamic_shifting"))
    factor = _dynamic_shift(config, image_tokens) if dynamic else float(config.get("flow_shift", 1.0))
    sigmas = _stretched(_shifted(np.linspace(1.0, 1 / train, steps + 1)[:-1], factor), config)
    if abs(sigmas[0] - 1) < _NEAR_ONE:
        sigmas[0] -= _NEAR_ONE
    last = float(sigmas[-1]) if config.get("final_sigmas_type") == "sigma_min" else 0.0
    found, _ = _single(sigmas, [last], train)
    return found, np.trunc(sigmas * train).tolist()


_SCHEDULES: Mapping[
    str, Callable[[Mapping[str, Any], int, Family, int | None], tuple[list[float], list[float]]]
] = {"FlowMatchEulerDiscreteScheduler": _euler, "UniPCMultistepScheduler": _unipc}


def _shifted(sigmas: Any, shift: float) -> Any:
    """Return s σ / (1 + (s - 1) σ)."""
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def _dynamic_shift(config: Mapping[str, Any], image_tokens: int | None) -> float:
    if image_tokens is None:
        raise UnsupportedModel("scheduler: it shifts by resolution, which this model does not say")
    mu = resolution_shift(config, image_tokens)
    return mu if config.get("time_shift_type") == "linear" else math.exp(mu)


def _stretched(sigmas: Floats, config: Mapping[str, Any]) -> Floats:
    """Return sigmas whose last one is the configured `shift_terminal`, if there is one."""
    terminal = config.get("shift_terminal")
    if not terminal:
        return sigmas
    stretch = (1 - float(terminal)) / (1 - float(sigmas[-1]))
    return 1 - (1 - sigmas) * stretch


def _single(sigmas: Floats, last: list[float], train: int) -> tuple[list[float], list[float]]:
    single = sigmas.astype(np.float32)
    return [*single.tolist(), *last], (single * np.float32(train)).tolist()
