"""What ties a policy to a network: class, trunk, guidance and weights of each of its denoisers, and its sampler."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from budc.compiler.denoisers.callables import CallableDenoiser
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.experts import ExpertSwitch
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.compiler.network.weights import REMEDY, NetworkWeights, network_weights
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.runtimes.sampling.scheduler_config import relevant_config
from budc.schema.arguments import described
from budc.schema.canonical import digest
from budc.schema.errors import UsageError, WeightsMismatch
from budc.schema.policy import (
    AdapterRule,
    BranchWeight,
    DenoiserBinding,
    Expert,
    ModelBinding,
    SamplerBinding,
    Variant,
)

_LARGEST_WEIGHT = 1000
"""Of a guidance branch in an artifact."""


def parts_of(denoiser: Denoiser) -> tuple[Denoiser, ...]:
    """Return the denoisers that run one after the other; a single one is its own only part."""
    return denoiser.denoisers if isinstance(denoiser, ExpertSwitch) else (denoiser,)


def part_names(denoiser: Denoiser) -> list[str]:
    """Return what an artifact calls the denoisers."""
    return ["network", *(f"network_{number}" for number in range(2, len(parts_of(denoiser)) + 1))]


def class_of(part: Denoiser) -> str:
    """Return the class of a denoiser's network; functions have none, and are called so."""
    if isinstance(part, ModuleDenoiser):
        return type(part.module).__name__
    return "functions" if isinstance(part, CallableDenoiser) else type(part).__name__


def blocks_of(part: Denoiser) -> str | None:
    """Return the attribute that lists a module's blocks."""
    return part.blocks if isinstance(part, ModuleDenoiser) else None


def guidance_of(part: Denoiser) -> Mapping[str, float]:
    """Return each branch's weight in the guided velocity. Raises UsageError: the denoiser does not show it."""
    weights = getattr(part, "weights", None)
    if not isinstance(weights, Mapping) or weights.keys() != set(part.branches):
        raise UsageError(
            f"denoiser: {type(part).__name__} has no attribute weights, branch -> weight in the guided velocity",
            remedy="give it one that adds up to 1, such as WeightedGuidance has",
        )
    return {branch: float(weights[branch]) for branch in part.branches}


def roots_in_memory(denoiser: Denoiser) -> tuple[str | None, ...]:
    """Return the tensor root of each part's weights now; None where they cannot be seen, or are not all in memory."""
    roots: list[str | None] = []
    for part in parts_of(denoiser):
        tensors = part.module.state_dict() if isinstance(part, ModuleDenoiser) else {}
        seen = tensors and not any(tensor.is_meta for tensor in tensors.values())
        roots.append(network_weights(tensors).tensor_root if seen else None)
    return tuple(roots)


def weights_of(denoiser: Denoiser, given: Any) -> list[NetworkWeights]:
    """Return the weights of each part: those in memory where it is a module, else those that are given.

    Raises:
        UsageError: a part is no module, and nothing or something else is given for it.
        WeightsMismatch: the files that are given hold other tensors than a module in memory.
        WeightsMissing, UnsafeWeights: see `network_weights`.
    """
    parts = parts_of(denoiser)
    listed = [given] * len(parts) if given is None or len(parts) == 1 else given
    if not isinstance(listed, Sequence) or isinstance(listed, str) or len(listed) != len(parts):
        raise UsageError(
            f"weights: {described(given)} are not the weights of {len(parts)} denoisers",
            remedy="pass a list with one entry a denoiser, in their order",
        )
    return [_weights_of(part, own) for part, own in zip(parts, listed, strict=True)]


def _weights_of(part: Denoiser, given: Any) -> NetworkWeights:
    module: nn.Module | None = part.module if isinstance(part, ModuleDenoiser) else None
    if given is None and module is None:
        raise UsageError(
            f"weights: those behind {'functions' if class_of(part) == 'functions' else class_of(part)} cannot be "
            "seen, and a policy is bound to them",
            remedy=REMEDY,
        )
    weights = network_weights(module if given is None else given)
    if given is not None and module is not None:
        in_memory = network_weights(module)
        if in_memory.tensor_root != weights.tensor_root:
            raise WeightsMismatch(
                f"weights: they have tensor root {weights.tensor_root}, those of the {type(module).__name__} in memory "
                f"have {in_memory.tensor_root}",
                remedy="save the network's state dict again, or leave weights out to bind to what is in memory",
            )
    return weights


def model_binding(
    denoiser: Denoiser, latents: Sequence[int], weights: Sequence[NetworkWeights], family: str
) -> ModelBinding:
    """Return what an artifact says of a network, whose samples have latents of this shape.

    Raises:
        UsageError: see `guidance_of`; or files of several denoisers are not in one folder.
    """
    parts, names = parts_of(denoiser), part_names(denoiser)
    if len({own.folder for own in weights}) > 1:
        raise UsageError(
            "weights: those of several denoisers are in different places",
            remedy="put all files into one folder, or pass state dicts",
        )
    files = {path: value for own in weights for path, value in own.files.items()}
    return ModelBinding(
        kind="network",
        family=family,
        denoisers=[
            DenoiserBinding(
                name=name,
                class_name=class_of(part),
                tensor_root=own.tensor_root,
                architecture=own.architecture,
                blocks=blocks_of(part),
                guidance=[
                    BranchWeight(branch=branch, weight=weight) for branch, weight in guidance_of(part).items()
                ],
            )
            for name, part, own in zip(names, parts, weights, strict=True)
        ],
        variants=[Variant(name="original", files=files)] if files else [],
        latents=list(latents),
        adapters=AdapterRule(rule="none"),
    )


def sampler_binding(denoiser: Denoiser, schedule: NoiseSchedule) -> SamplerBinding:
    """Return what an artifact says of the sampler. Raises UsageError: see `guidance_of`."""
    scales = [max(guidance_of(part).values()) for part in parts_of(denoiser)]
    taken_over = denoiser.first_steps(schedule.timesteps)
    config = relevant_config(schedule.scheduler)
    return SamplerBinding(
        scheduler=type(schedule.scheduler).__name__,
        config=config,
        config_digest=digest(config),
        steps=schedule.steps,
        sigmas=schedule.sigmas,
        timesteps=schedule.timesteps,
        guidance=scales[0],
        guidance_rule="classifier-free" if len(denoiser.branches) > 1 else "none",
        experts=[
            Expert(denoiser=name, first_step=step, guidance=scale)
            for name, step, scale in zip(part_names(denoiser)[1:], taken_over, scales[1:], strict=True)
        ],
    )


def check_names(denoiser: Denoiser) -> None:
    """Refuse branches and weights of them that an artifact cannot hold. Raises UsageError."""
    for part in parts_of(denoiser):
        for branch, weight in guidance_of(part).items():
            if not isinstance(branch, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", branch):
                raise UsageError(
                    f"conditioning: an artifact cannot hold the branch {described(branch)}",
                    remedy="compile with branches named in letters, digits, dots and dashes",
                )
            if abs(weight) > _LARGEST_WEIGHT:
                raise UsageError(
                    f"guidance: an artifact cannot hold the weight {weight:g} of {branch}",
                    remedy=f"use weights of at most {_LARGEST_WEIGHT}",
                )


def as_name(text: str) -> str:
    """Return a text as a name that an artifact can have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.").lower()[:100] or "network"
