"""Refinement: coefficients and sigmas trained by gradient through the unrolled sampler.

    loss = mean over a batch of log(mean squared error of the final latents against the full run)

Adam on the coefficients' differences and the sigmas' log gaps, learning rates falling to zero along a cosine.
After every epoch the parameters are judged on prompts that they were not trained on, and the best ones are
returned, the initial ones included: a refinement that does not generalise changes nothing. Where a batch and its
activations do not fit into the device's memory, blocks are checkpointed too, then the batch is
split into micro-batches; the gradient is that of the whole batch all the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.microbatches import MicroBatches
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet, gradient, log_error
from budc.compiler.training.parameters import Parameters
from budc.progress import progress

RATES: Mapping[str, float] = {"coefficients": 0.01, "sigmas": 0.02}
"""Learning rate of every group of parameters."""

BACKWARD = 2
"""What a backward pass counts, in forwards."""


@dataclass(frozen=True)
class TrainingResult:
    """The best parameters by validation: group -> values; both log losses; forward equivalents; the epoch taken."""

    values: dict[str, Tensor]
    before: float
    after: float
    forwards: int
    epoch: int


def training_forwards(evaluations: int, train: int, validation: int, epochs: int) -> int:
    """Return the forward equivalents of a refinement on so many samples, each of so many forwards under the policy."""
    return evaluations * (epochs * ((1 + BACKWARD) * train + validation) + validation)


def train(
    denoiser: Denoiser,
    parameters: Parameters,
    train: TrainingSet,
    validation: TrainingSet,
    *,
    epochs: int,
    evaluations: int,
    seed: int,
    journal: Journal,
    label: str,
    batch: int = 3,
    rates: Mapping[str, float] = RATES,
) -> TrainingResult:
    """Train `parameters` in place for `epochs`, leave them at their best and return it.

    `evaluations` are the forwards of one sample under the policy, all branches together; a small `batch` costs no
    more of them and takes more steps. Every epoch is in the journal, optimiser included: a killed refinement goes
    on at the epoch that it was in.

    Raises:
        DeviceMemory: not even one sample's gradient fits into the memory of the device.
    """
    microbatches = MicroBatches(
        batch,
        make_room=denoiser.checkpoint_blocks,
        remedy="compile without alignment (--align), or use a device with more memory",
    )
    optimiser = torch.optim.Adam(
        [{"params": [tensor], "lr": rates[name]} for name, tensor in parameters.groups.items()],
        betas=(0.9, 0.99),
    )
    batches = math.ceil(len(train) / batch)
    before = journal.get(f"{label} epoch 0")
    if before is None:
        before = {
            "loss": log_error(denoiser, parameters, validation, microbatches),
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
                    _step(
                        optimiser,
                        parameters,
                        gradient(denoiser, parameters, train, chosen.tolist(), microbatches),
                    )
                    bar.advance()
                known = {
                    "loss": log_error(denoiser, parameters, validation, microbatches),
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
    forwards = training_forwards(evaluations, len(train), len(validation), epochs)
    return TrainingResult(values, before["loss"], best["loss"], forwards, best_epoch)


def _step(optimiser: torch.optim.Optimizer, parameters: Parameters, gradients: Sequence[Tensor]) -> None:
    # A batch whose samples leave the range of numbers teaches nothing.
    if all(torch.isfinite(found).all() for found in gradients):
        for leaf, found in zip(parameters.groups.values(), gradients, strict=True):
            leaf.grad = found
        optimiser.step()


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
