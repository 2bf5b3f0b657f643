"""The training loop of the embedded models: two optimisers, averaged weights, checkpoints, resume.

Each step draws from a generator seeded by (seed, step), so a run that was killed and resumed gives the same weights as
one that was not. The learning rate is constant and then falls to zero over the last share of the steps (`cooldown`).
The number of steps may be changed until then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from torch import Tensor, nn

from budc.schema.errors import UsageError

Loss = Callable[[int, torch.Generator], Tensor]


class Recipe(msgspec.Struct, frozen=True):
    """How long and how fast to train one component."""

    steps: int
    matrix_lr: float = 0.02
    other_lr: float = 3e-3
    warmup: int = 100
    cooldown: float = 0.3
    average: float = 0.999
    save_every: int = 500


class Fit:
    """Weights, optimisers and averaged weights of one training run."""

    def __init__(self, module: nn.Module, recipe: Recipe, seed: int) -> None:
        self.module = module
        self.recipe = recipe
        self.seed = seed
        self.step = 0
        self.average = {k: v.detach().clone() for k, v in module.named_parameters()}
        self._matrices = [p for n, p in module.named_parameters() if p.ndim >= 2 and "embed" not in n]
        matrices = {id(p) for p in self._matrices}
        others = [p for p in module.parameters() if id(p) not in matrices]
        # Muon takes matrices only: convolutions are given to it as views that share their storage.
        self._views = [nn.Parameter(p.data.view(p.shape[0], -1)) for p in self._matrices]
        self._muon = torch.optim.Muon(self._views, lr=recipe.matrix_lr, weight_decay=0.0)
        self._adamw = torch.optim.AdamW(others, lr=recipe.other_lr, weight_decay=0.0, betas=(0.9, 0.99))

    def update(self, loss: Tensor) -> None:
        """Take one optimiser step on a loss and add the weights to the average."""
        for parameter in self.module.parameters():
            parameter.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        rate = self._rate()
        for optimiser, lr in ((self._muon, self.recipe.matrix_lr), (self._adamw, self.recipe.other_lr)):
            for group in optimiser.param_groups:
                group["lr"] = lr * rate
        for view, parameter in zip(self._views, self._matrices, strict=True):
            view.grad = None if parameter.grad is None else parameter.grad.view(view.shape)
        self._muon.step()
        self._adamw.step()
        self.step += 1
        decay = min(self.recipe.average, self.step / (self.step + 10))
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                self.average[name].lerp_(parameter, 1 - decay)

    def _rate(self) -> float:
        recipe = self.recipe
        left = (recipe.steps - self.step) / max(1, int(recipe.steps * recipe.cooldown))
        return min(1.0, (self.step + 1) / recipe.warmup, left)

    def save(self, path: Path) -> None:
        """Write a checkpoint; if the process is killed meanwhile, the last checkpoint stays intact."""
        state = {
            "step": self.step,
            "seed": self.seed,
            "module": self.module.state_dict(),
            "average": self.average,
            "muon": self._muon.state_dict(),
            "adamw": self._adamw.state_dict(),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}.part")
        torch.save(state, temporary)
        os.replace(temporary, path)

    def load(self, path: Path) -> None:
        """Resume from a checkpoint.

        Raises:
            UsageError: it was trained with another seed.
        """
        device = next(self.module.parameters()).device
        state = torch.load(path, weights_only=True, map_location=device)
        if state["seed"] != self.seed:
            raise UsageError(
                f"{path} was trained with seed {state['seed']}, not {self.seed}",
                remedy="use another --out for another seed",
            )
        self.module.load_state_dict(state["module"])
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])
        self.average = state["average"]
        self.step = state["step"]

    def use_average(self) -> None:
        """Put the averaged weights into the module, once training is over."""
        self.module.load_state_dict(self.average, strict=False)


def fit(module: nn.Module, loss: Loss, recipe: Recipe, checkpoint: Path, seed: int, label: str) -> None:
    """Train a module in place to the end of its recipe and leave it with the averaged weights."""
    run = Fit(module, recipe, seed)
    if checkpoint.exists():
        run.load(checkpoint)
    generator = torch.Generator()
    started, first, shown, total, count = time.monotonic(), run.step, time.monotonic(), 0.0, 0
    while run.step < recipe.steps:
        generator.manual_seed((seed << 32) + run.step)
        value = loss(run.step, generator)
        run.update(value)
        total, count = total + float(value.detach()), count + 1
        if run.step % recipe.save_every == 0:
            run.save(checkpoint)
        if time.monotonic() - shown > 15 or run.step == recipe.steps:
            pace = (time.monotonic() - started) / (run.step - first)
            left = pace * (recipe.steps - run.step) / 60
            print(
                f"{label} {run.step}/{recipe.steps} loss {total / count:.5f} {left:.1f} min left", flush=True
            )
            shown, total, count = time.monotonic(), 0.0, 0
    if run.step > first:
        run.save(checkpoint)
    run.use_average()
