"""Training of coefficients and sigmas, by gradient through the unrolled sampler.

    loss = mean over a batch of log(mean squared error of the final latents against the reference run)

Adam on moves of the coefficients and of the sigmas' log gaps; learning rates warm up and fall to zero along a cosine.
After every epoch the parameters are measured on validation prompts that they are not trained on. The best ones are
returned, the initial ones included: a training that does not generalise changes nothing. Without validation prompts the
last ones are. Where a batch and its activations do not fit into the device's memory, the transformer's blocks are
checkpointed, then the batch is split into micro-batches; the gradient is that of the whole batch all the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import torch
from torch import Tensor

from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.microbatches import MicroBatches
from budc.compiler.storage.journal import Journal
from budc.compiler.training.dataset import TrainingSet, gradient, log_error
from budc.compiler.training.forwards import TrainingCost
from budc.compiler.training.losses import SampleLoss, log_squared_error
from budc.compiler.training.parameters import Parameters
from budc.option_names import option
from budc.progress import progress

RATES: Mapping[str, float] = {"coefficients": 0.01, "sigmas": 0.02}
"""Learning rate of every group of parameters, where each coefficient moves by itself."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train: epochs, the seed of the order of samples, samples a step, and learning rates by group.

    A small `batch` costs no more forwards than a large one, and takes more steps. Rates rise over `warm_up` steps.
    `loss` is the mean of what is minimised over a batch. `clip` bounds the gradient's norm.
    """

    epochs: int
    seed: int
    batch: int = 3
    rates: Mapping[str, float] = field(default_factory=lambda: RATES)
    warm_up: int = 4
    loss: SampleLoss = log_squared_error
    clip: float | None = None
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True)
class TrainingResult:
    """The best parameters by validation, or the last; group -> values; validated log losses before and after; forward
    equivalents; the epoch of the parameters.
    """

    values: dict[str, Tensor]
    before: float | None
    after: float | None
    forwards: int
    epoch: int


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A group of parameters and the optimiser's state of it, flattened; no state before the first step."""

    values: list[float]
    moments: dict[str, list[float]]

    def fits(self, tensor: Tensor) -> bool:
        """Return whether these are the values and state of `tensor`."""
        sizes = {"step": 1, "exp_avg": tensor.numel(), "exp_avg_sq": tensor.numel()}
        return len(self.values) == tensor.numel() and (
            not self.moments or {name: len(values) for name, values in self.moments.items()} == sizes
        )


class _Epoch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parameters after an epoch, and their validation loss; None where nothing validates."""

    loss: float | None
    state: dict[str, _Group]


def train(
    denoiser: Denoiser,
    parameters: Parameters,
    training_set: TrainingSet,
    validation: TrainingSet | None,
    settings: TrainingSettings,
    journal: Journal,
    label: str,
) -> TrainingResult:
    """Train `parameters` in place, leave them at their best and return it.

    Every epoch is in the journal under `label`, with the optimiser's state: a training that was killed goes on at the
    epoch that it was in.

    Raises:
        DeviceMemory: the gradient of one sample does not fit into the memory of the device.
    """
    trainer = _Trainer(denoiser, parameters, training_set, settings)
    start = journal.get(f"{label} epoch 0", _Epoch, trainer.fits)
    if start is None:
        start = trainer.record(validation)
        journal.put(f"{label} epoch 0", start)
    record, best, best_epoch = start, start, 0
    with progress(label, settings.epochs * trainer.batches) as bar:
        for epoch in range(1, settings.epochs + 1):
            stored = journal.get(f"{label} epoch {epoch}", _Epoch, trainer.fits)
            if stored is None:
                trainer.restore(record)
                trainer.run(epoch, bar.advance)
                stored = trainer.record(validation)
                journal.put(f"{label} epoch {epoch}", stored)
            else:
                for _ in range(trainer.batches):
                    bar.advance(replayed=True)
            record = stored
            if record.loss is None or best.loss is None or record.loss < best.loss:
                best, best_epoch = record, epoch
    trainer.restore(best)
    values = {name: tensor.detach().clone() for name, tensor in parameters.groups.items()}
    validated = 0 if validation is None else len(validation)
    forwards = TrainingCost(parameters.forwards, len(training_set), validated, settings.epochs).forwards
    return TrainingResult(values, start.loss, best.loss, forwards, best_epoch)


class _Trainer:
    def __init__(
        self,
        denoiser: Denoiser,
        parameters: Parameters,
        training_set: TrainingSet,
        settings: TrainingSettings,
    ) -> None:
        self.batches = math.ceil(len(training_set) / settings.batch)
        self._denoiser, self._parameters = denoiser, parameters
        self._training_set, self._settings = training_set, settings
        self._microbatches = MicroBatches(
            settings.batch,
            make_room=denoiser.checkpoint_blocks,
            remedy=f"compile without alignment ({option('align', True)}), or use a device with more memory",
        )
        self._optimiser = torch.optim.Adam(
            [{"params": [tensor], "lr": settings.rates[name]} for name, tensor in parameters.groups.items()],
            betas=settings.betas,
        )

    def run(self, epoch: int, advance: Callable[[], object]) -> None:
        """Train for one epoch (1-based)."""
        generator = torch.Generator().manual_seed(self._settings.seed + epoch)
        order = torch.randperm(len(self._training_set), generator=generator)
        for index, rows in enumerate(order.split(self._settings.batch)):
            self._set_rates((epoch - 1) * self.batches + index)
            self._step(
                gradient(
                    self._denoiser,
                    self._parameters,
                    self._training_set,
                    rows.tolist(),
                    self._microbatches,
                    self._settings.loss,
                )
            )
            advance()

    def record(self, validation: TrainingSet | None) -> _Epoch:
        """Return what the journal keeps of the present parameters: their validation loss, and all state."""
        loss = None
        if validation is not None:
            loss = log_error(self._denoiser, self._parameters, validation, self._microbatches)
        state = {
            name: _Group(
                tensor.detach().flatten().tolist(),
                {
                    key: value.flatten().tolist()
                    for key, value in self._optimiser.state.get(tensor, {}).items()
                },
            )
            for name, tensor in self._parameters.groups.items()
        }
        return _Epoch(loss, state)

    def fits(self, record: _Epoch) -> bool:
        """Return whether a record is of these parameters."""
        groups = self._parameters.groups
        return record.state.keys() == groups.keys() and all(
            group.fits(groups[name]) for name, group in record.state.items()
        )

    def restore(self, record: _Epoch) -> None:
        """Go back to the parameters and the optimiser's state of a record."""
        for name, tensor in self._parameters.groups.items():
            group = record.state[name]
            with torch.no_grad():
                tensor.copy_(torch.tensor(group.values, dtype=tensor.dtype).view_as(tensor))
            if group.moments:
                (steps,) = group.moments["step"]
                self._optimiser.state[tensor] = {
                    "step": torch.tensor(steps, dtype=torch.float32),
                    **{
                        name: torch.tensor(group.moments[name], dtype=tensor.dtype).view_as(tensor)
                        for name in ("exp_avg", "exp_avg_sq")
                    },
                }

    def _set_rates(self, steps_done: int) -> None:
        cosine = 0.5 * (1 + math.cos(math.pi * steps_done / (self._settings.epochs * self.batches)))
        warming = min(1.0, (steps_done + 1) / max(1, self._settings.warm_up))
        for group, name in zip(self._optimiser.param_groups, self._parameters.groups, strict=True):
            group["lr"] = self._settings.rates[name] * cosine * warming

    def _step(self, gradients: Sequence[Tensor]) -> None:
        # A batch with a gradient that is not finite is left out.
        if all(torch.isfinite(values).all() for values in gradients):
            for leaf, values in zip(self._parameters.groups.values(), gradients, strict=True):
                leaf.grad = values
            if self._settings.clip is not None:
                torch.nn.utils.clip_grad_norm_(self._parameters.groups.values(), self._settings.clip)
            self._optimiser.step()
