"""Schedulers: what a policy is bound to, and how its exact schedule is set on a scheduler.

The compiler and the runtime both use this module, so a policy runs on the sigmas that it was searched on, bit for
bit. sigmas: `steps + 1` noise levels, terminal value included. timesteps: `steps` values, as the transformer is
given them, terminal value not included.
"""

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from budc.runtimes.sampling.families import Family, SigmaRule
from budc.runtimes.sampling.scheduler_config import relevant_config
from budc.runtimes.sampling.solvers.schedules import resolution_shift
from budc.schema.canonical import digest
from budc.schema.errors import RefusedRun, UnsupportedModel
from budc.schema.policy import SamplerBinding

GuidanceRule = Literal["classifier-free", "distilled", "none"]


def sampler_binding(
    scheduler: Any,
    steps: int,
    guidance: float,
    *,
    family: Family,
    guidance_rule: GuidanceRule,
    image_tokens: int | None = None,
    sigmas: Sequence[float] | None = None,
) -> SamplerBinding:
    """Return the binding to `scheduler` (left untouched) at `steps` steps.

    The schedule is the one that the family's own pipeline would run, unless `sigmas` (`steps + 1` values,
    terminal value included) gives another; its timesteps are then sigma times the number of training
    timesteps. `image_tokens` is needed where a pipeline shifts its schedule by resolution.

    Raises:
        UnsupportedModel: the scheduler evaluates the model more than once a step, or its schedule cannot be
            set.
    """
    default_sigmas, timesteps = default_schedule(scheduler, steps, family=family, image_tokens=image_tokens)
    if sigmas is not None:
        if len(sigmas) != steps + 1:
            raise RefusedRun(f"{len(sigmas)} sigmas were given for {steps} steps, expected {steps + 1}")
        probe = torch.tensor(list(sigmas), dtype=torch.float32)
        timesteps = (probe[:-1] * scheduler.config.num_train_timesteps).tolist()
        default_sigmas = probe.tolist()
    config = relevant_config(scheduler)
    return SamplerBinding(
        scheduler=type(scheduler).__name__,
        config=config,
        config_digest=digest(config),
        steps=steps,
        sigmas=default_sigmas,
        timesteps=timesteps,
        guidance=guidance,
        guidance_rule=guidance_rule,
    )


def default_schedule(
    scheduler: Any, steps: int, *, family: Family, image_tokens: int | None = None
) -> tuple[list[float], list[float]]:
    """Return (sigmas, timesteps) that the family's pipeline would run with `scheduler`, which is left
    untouched.

    Raises:
        UnsupportedModel: see `sampler_binding`.
    """
    check_order(scheduler)
    probe = copy.deepcopy(scheduler)
    probe.set_timesteps(**schedule_arguments(scheduler, steps, family=family, image_tokens=image_tokens))
    sigmas, timesteps = probe.sigmas.tolist(), probe.timesteps.tolist()
    if len(sigmas) != steps + 1 or len(timesteps) != steps:
        raise UnsupportedModel(
            f"{type(scheduler).__name__} makes {len(sigmas)} sigmas and {len(timesteps)} timesteps "
            f"for {steps} steps"
        )
    return sigmas, [float(t) for t in timesteps]


def check_order(scheduler: Any) -> None:
    """Refuse a scheduler that evaluates the model more than once a step. Raises UnsupportedModel."""
    if getattr(scheduler, "order", 1) != 1:
        raise UnsupportedModel(
            f"{type(scheduler).__name__} evaluates the model {scheduler.order} times a step",
            remedy="use a scheduler with one evaluation a step, such as flow-matching Euler or UniPC",
        )


def schedule_arguments(
    scheduler: Any, steps: int, *, family: Family, image_tokens: int | None = None
) -> dict[str, Any]:
    """Return the keyword arguments with which the family's pipeline calls `set_timesteps`."""
    arguments: dict[str, Any] = {"num_inference_steps": steps}
    if family.sigmas != "none" and not scheduler.config.get("use_flow_sigmas"):
        arguments = {"sigmas": passed_sigmas(steps, family.sigmas)}
    if family.passes_mu and scheduler.config.get("use_dynamic_shifting"):
        if image_tokens is None:
            raise RefusedRun(
                "the scheduler shifts by resolution, but the number of image tokens is not known"
            )
        arguments["mu"] = resolution_shift(scheduler.config, image_tokens)
    return arguments


def passed_sigmas(steps: int, rule: SigmaRule = "to-last") -> list[float]:
    """Return what pipelines pass as sigmas before any shift: evenly from 1 down to 1 / steps.

    The rules differ in how that is computed, and so in the last bit: "to-last" ends at 1 / steps, "to-zero"
    leaves out a 0 at the end, "to-last-single" counts in single precision.
    """
    if rule == "to-zero":
        values: list[float] = np.linspace(1.0, 0.0, steps + 1)[:-1].tolist()
    elif rule == "to-last-single":
        values = torch.linspace(1.0, 1 / steps, steps).tolist()
    else:
        values = np.linspace(1.0, 1 / steps, steps).tolist()
    return values


def apply_schedule(scheduler: Any, sigmas: Sequence[float], timesteps: Sequence[float]) -> None:
    """Set the exact schedule on a scheduler whose own `set_timesteps` has just run.

    That call has reset the multistep history and the step index. Sigmas stay on the device where the
    scheduler has them (the CPU for UniPC); timesteps keep its dtype unless that would cut off a fraction.
    """
    scheduler.sigmas = torch.tensor(
        list(sigmas), dtype=scheduler.sigmas.dtype, device=scheduler.sigmas.device
    )
    own = scheduler.timesteps
    whole = all(float(t).is_integer() for t in timesteps)
    dtype = own.dtype if whole or own.dtype.is_floating_point else torch.float32
    scheduler.timesteps = torch.tensor(list(timesteps), dtype=dtype, device=own.device)


def on_schedule(
    scheduler: Any, sigmas: Sequence[float], timesteps: Sequence[float], device: Any = None
) -> Any:
    """Return a copy of `scheduler` at the beginning of a run on exactly this schedule."""
    copied = _with_steps(scheduler, len(timesteps), device)
    apply_schedule(copied, sigmas, timesteps)
    copied.set_begin_index(0)
    return copied


def terminal_sigma(scheduler: Any, steps: int) -> float:
    """Return the sigma at which the scheduler's own schedule of `steps` steps ends. The scheduler is not changed."""
    return float(_with_steps(scheduler, steps).sigmas[-1])


def _with_steps(scheduler: Any, steps: int, device: Any = None) -> Any:
    copied = copy.deepcopy(scheduler)
    # Some schedulers demand a shift by resolution, which does not move the end.
    shift = {"mu": 0.0} if copied.config.get("use_dynamic_shifting") else {}
    copied.set_timesteps(steps, device=device, **shift)
    return copied


def schedule_version(scheduler: Any) -> tuple[int, ...]:
    """Return numbers that change when a scheduler's sigmas or timesteps are replaced or written to.

    No value is read, so nothing waits for the device.
    """
    tensors = (scheduler.sigmas, scheduler.timesteps)
    # Tensors made in inference mode have no version; only their replacement is noticed.
    return tuple(number for t in tensors for number in (id(t), 0 if t.is_inference() else t._version))


def first_steps(timesteps: Sequence[float] | torch.Tensor, boundaries: Sequence[float]) -> tuple[int, ...]:
    """Return for each timestep of `boundaries`, descending, the first of `timesteps` that is below it.

    Where no timestep is below it, that is the number of steps. Pipelines with several denoisers switch to the next
    one at this step, and compare in single precision.
    """
    times = torch.as_tensor(timesteps, dtype=torch.float32)
    return tuple(int((times >= boundary).sum()) for boundary in boundaries)


def step_index(scheduler: Any) -> int:
    """Return the 0-based step that the scheduler is at, during the forwards of that step.

    Before their first step schedulers have no step index; it is then the index at which the run begins.
    """
    index = scheduler.step_index
    if index is None:
        index = getattr(scheduler, "begin_index", None)
    return 0 if index is None else int(index)
