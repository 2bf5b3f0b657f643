"""Refinement: coefficients and sigmas trained by gradient through the unrolled sampler.

    loss = mean over a batch of log(mean squared error of the final latents against the full run)

Adam on the coefficients' differences and the sigmas' log gaps, learning rates falling to zero along a cosine.
After every epoch the parameters are judged on prompts that they were not trained on, and the best ones are
returned, the initial ones included: a refinement that does not generalise changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from budc.compiler.conditions import Conditions
from budc.compiler.denoiser import Denoiser
from budc.compiler.journal import Journal
from budc.compiler.metrics import latent_errors
from budc.compiler.progress import progress
from budc.compiler.unroll import Parameters, unroll

RATES: Mapping[str, float] = {"coefficients": 0.01, "sigmas": 0.02}
"""Learning rate of every group of parameters."""

BACKWARD = 2
"""What a backward pass counts, in forwards."""


@dataclass(frozen=True)
class Lesson:
    """A prompt set and the latents that it should end in, (N, ...)."""

    conditions: Conditions
    latents: Tensor

    def __len__(self) -> int:
        return len(self.latents)

    def part(self, first: int, last: int) -> Lesson:
        """Return the samples first..last-1."""
        return Lesson(self.conditions.part(first, last), self.latents[first:last])


@dataclass(frozen=True)
class Refined:
    """The best parameters by validation: group -> values; both log losses; forward equivalents; the epoch taken."""

    values: dict[str, Tensor]
    before: float
    after: float
    forwards: int
    epoch: int


def refine(
    denoiser: Denoiser,
    parameters: Parameters,
    train: Lesson,
    validation: Lesson,
    *,
    epochs: int,
    evaluations: int,
    seed: int,
    journal: Journal,
    label: str,
    batch: int = 3,
    rates: Mapping[str, float] = RATES,
) -> Refined:
    """Train `parameters` in place for `epochs`, leave them at their best and return it.

    `evaluations` are the forwards of one sample under the policy, all branches together; a small `batch` costs no
    more of them and takes more steps. Every epoch is in the journal, optimiser included: a killed refinement goes
    on at the epoch that it was in.
    """
    optimiser = torch.optim.Adam(
        [{"params": [tensor], "lr": rates[name]} for name, tensor in parameters.groups.items()],
        betas=(0.9, 0.99),
    )
    batches = math.ceil(len(train) / batch)
    per_epoch = (1 + BACKWARD) * evaluations * len(train) + evaluations * len(validation.conditions)
    before = journal.get(f"{label} epoch 0")
    if before is None:
        before = {
            "loss": _judge(denoiser, parameters, validation, batch),
            "state": _dump(parameters, optimiser),
        }
        journal.put(f"{label} epoch 0", before)
    best, best_epoch = before, 0
    with progress(label, epochs * batches) as bar:
        record = before
        for epoch in range(1, epochs + 1):
            known = journal.get(f"{label} epoch {epoch}")
            if known is None:
                _load(parameters, optimiser, record["state"])
                order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed + epoch))
                for index in range(batches):
                    done = (epoch - 1) * batches + index
                    fall = 0.5 * (1 + math.cos(math.pi * done / (epochs * batches)))
                    for group, name in zip(optimiser.param_groups, parameters.groups, strict=True):
                        group["lr"] = rates[name] * fall * min(1.0, (done + 1) / 4)
                    chosen = order[index * batch : (index + 1) * batch]
                    _learn(denoiser, parameters, train, chosen, optimiser)
                    bar.advance()
                known = {
                    "loss": _judge(denoiser, parameters, validation, batch),
                    "state": _dump(parameters, optimiser),
                }
                journal.put(f"{label} epoch {epoch}", known)
            else:
                for _ in range(batches):
                    bar.advance(replayed=True)
            record = known
            if known["loss"] < best["loss"]:
                best, best_epoch = known, epoch
    _load(parameters, optimiser, best["state"])
    values = {name: tensor.detach().clone() for name, tensor in parameters.groups.items()}
    forwards = per_epoch * epochs + evaluations * len(validation)
    return Refined(values, before["loss"], best["loss"], forwards, best_epoch)


def _learn(
    denoiser: Denoiser,
    parameters: Parameters,
    train: Lesson,
    chosen: Tensor,
    optimiser: torch.optim.Optimizer,
) -> None:
    rows = chosen.tolist()
    latents = unroll(denoiser, parameters, train.conditions.rows(rows))
    errors = (latents - train.latents[rows].to(latents.device)).square().flatten(1).mean(1)
    loss = errors.clamp_min(1e-30).log().mean()
    optimiser.zero_grad()
    loss.backward()
    if all(
        torch.isfinite(tensor.grad).all() for tensor in parameters.groups.values() if tensor.grad is not None
    ):
        optimiser.step()


def _judge(denoiser: Denoiser, parameters: Parameters, validation: Lesson, batch: int) -> float:
    errors: list[float] = []
    with torch.no_grad():
        for first in range(0, len(validation), batch):
            part = validation.part(first, first + batch)
            errors += latent_errors(unroll(denoiser, parameters, part.conditions).cpu(), part.latents)
    loss = sum(math.log(max(error, 1e-30)) if error == error else math.inf for error in errors) / len(errors)
    return min(loss, 1e9)


def _dump(parameters: Parameters, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    dumped: dict[str, Any] = {}
    for name, tensor in parameters.groups.items():
        state = optimiser.state.get(tensor, {})
        dumped[name] = {
            "values": tensor.detach().tolist(),
            **{key: value.tolist() for key, value in state.items() if isinstance(value, Tensor)},
        }
    return dumped


def _load(parameters: Parameters, optimiser: torch.optim.Optimizer, dumped: Mapping[str, Any]) -> None:
    for name, tensor in parameters.groups.items():
        stored = dict(dumped[name])
        with torch.no_grad():
            tensor.copy_(torch.tensor(stored.pop("values"), dtype=tensor.dtype).view_as(tensor))
        if stored:
            optimiser.state[tensor] = {
                key: torch.tensor(value, dtype=torch.float32 if key == "step" else tensor.dtype)
                for key, value in stored.items()
            }
