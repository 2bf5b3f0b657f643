"""Sampling: one pipeline with random weights; its time and memory, with a policy and without."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import timing
import torch
from runtimes_compared.loop import Loop
from torch.utils._pytree import tree_map_only

from budc.policies.profile import ModelProfile
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.admission.trust import TrustedPolicy
from budc.runtimes.diffusers.applied import AppliedPolicy
from budc.schema.mask import StepMask
from budc.schema.policy import PolicyDocument
from random_models.pipeline import arguments, random_pipeline

MODES: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "compiled": {"fullgraph": True},
    "CUDA graphs": {"fullgraph": True, "mode": "reduce-overhead"},
}
"""How the transformer runs: the arguments of its `compile`."""


class Sampling:
    """A pipeline on a device; `settle` waits until the device has finished."""

    def __init__(self, profile: ModelProfile, device: torch.device) -> None:
        self.profile = profile
        self.device = device
        self.pipe = random_pipeline(profile, device)
        with timing.forward_inputs(self.pipe, len(profile.branches)) as self._inputs:
            self.run(0, steps=1)

    def run(self, seed: int, steps: int, on_step: Callable[[int], object] | None = None) -> torch.Tensor:
        """Return the final latents for one random prompt."""

        def after(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            assert on_step is not None
            on_step(step)
            return tensors

        latents: torch.Tensor = self.pipe(
            **arguments(self.profile, self.pipe, seed),
            num_inference_steps=steps,
            callback_on_step_end=None if on_step is None else after,
        )[0]
        return latents

    def forward(self) -> None:
        """Run the transformer once for every guidance branch."""
        with torch.no_grad():
            for inputs in self._inputs:
                self.pipe.transformer(**inputs)

    def settle(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @contextmanager
    def mode(self, name: str) -> Iterator[None]:
        """Run the transformer in one of `MODES` for the length of a with-block."""
        torch._dynamo.reset()
        options = MODES[name]
        if options is not None:
            self.pipe.transformer.compile(**options)
            keep_outputs(self.pipe.transformer)
        try:
            yield
        finally:
            self.pipe.transformer._compiled_call_impl = None

    @contextmanager
    def under(self, document: PolicyDocument) -> Iterator[None]:
        """Apply a policy for the length of a with-block. Random weights are bound to no digest, so none is checked."""
        handle = AppliedPolicy(self.pipe, {document.budget.nfe: TrustedPolicy(document)}, SettingsCheck())
        handle.install()
        try:
            yield
        finally:
            handle.remove()

    def loop(self, mask: StepMask, repeats: int) -> dict[str, float]:
        """Time denoising under the policy of that mask, and as many forwards alone."""
        steps = len(mask)
        measured = Loop(lambda on_step: self.run(0, steps, on_step), self.forward, self.settle)
        self.forward()
        return measured.measure(list(mask), repeats)[0]

    def seconds(self, seeds: range, steps: int) -> list[float]:
        """Time one denoising per prompt, after one that is not counted."""
        taken = []
        for seed in [seeds.start, *seeds]:
            self.settle()
            started = time.perf_counter()
            self.run(seed, steps)
            self.settle()
            taken.append(time.perf_counter() - started)
        return taken[1:]

    def peak(self, steps: int) -> int | None:
        """Return the most bytes allocated on the device during a run; None where the device does not count them."""
        if self.device.type != "cuda":
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(self.device)
        self.run(0, steps)
        return torch.cuda.max_memory_allocated(self.device)


def keep_outputs(transformer: torch.nn.Module) -> None:
    """Give every output of a compiled module memory of its own.

    CUDA graphs write the output of every call into the same memory (pytorch/pytorch issue 170604). A pipeline that runs
    its guidance branches one after the other still needs the first output after the second call.
    """
    run = transformer._compiled_call_impl
    assert run is not None, "it is not compiled"

    def cloned(*args: Any, **kwargs: Any) -> Any:
        return tree_map_only(torch.Tensor, torch.clone, run(*args, **kwargs))

    transformer._compiled_call_impl = cloned


def spread(seconds: list[float]) -> dict[str, float]:
    """Return mean, and standard deviation and range relative to it."""
    mean = statistics.mean(seconds)
    return {
        "prompts": len(seconds),
        "meanSeconds": mean,
        "deviation": statistics.pstdev(seconds) / mean,
        "range": (max(seconds) - min(seconds)) / mean,
    }
