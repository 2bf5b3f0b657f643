"""Experts: several denoisers that share a run, one after the other, as one denoiser.

Each takes over where the timestep falls below its boundary, and stays until the next one does. A rollout needs to know
only the steps at which that happens (`Denoiser.first_steps`): they are computed, and nothing that was cached before is
reused after them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.identity import identity_of
from budc.option_names import worded
from budc.runtimes.sampling.schedulers import first_steps
from budc.schema.errors import UsageError


class ExpertSwitch:
    """Denoisers of the same branches on the same device, in order; `boundaries` (descending) lie between them."""

    def __init__(self, denoisers: Sequence[Denoiser], boundaries: Sequence[float]) -> None:
        self.denoisers = tuple(denoisers)
        self._boundaries = tuple(boundaries)
        self.branches = self.denoisers[0].branches
        self.linear = all(denoiser.linear for denoiser in self.denoisers)
        self.device = self.denoisers[0].device

    def first_steps(self, timesteps: Sequence[float] | Tensor) -> tuple[int, ...]:
        """Return the first step of every denoiser but the first; the number of steps where a denoiser has none."""
        return first_steps(timesteps, self._boundaries)

    def compute(self, latents: Tensor, timestep: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Run the whole network of this timestep."""
        return self._at(timestep).compute(latents, timestep, condition)

    def reuse(self, residual: Tensor, latents: Tensor, timestep: Tensor, condition: Condition) -> Tensor:
        """Run what is before and after the trunk of this timestep's network."""
        return self._at(timestep).reuse(residual, latents, timestep, condition)

    def guide(self, velocities: Mapping[str, Tensor], timestep: Tensor) -> Tensor:
        """Guide as this timestep's network is guided."""
        return self._at(timestep).guide(velocities, timestep)

    def checkpoint_blocks(self) -> bool:
        """Checkpoint the blocks of one more network."""
        return any(denoiser.checkpoint_blocks() for denoiser in self.denoisers)

    def identity(self) -> object:
        """Return what tells every denoiser, and when it takes over; None where one cannot be told from others."""
        denoisers = [identity_of(denoiser) for denoiser in self.denoisers]
        return None if None in denoisers else {"denoisers": denoisers, "boundaries": list(self._boundaries)}

    def _at(self, timestep: Tensor) -> Denoiser:
        return self.denoisers[sum(not timestep >= boundary for boundary in self._boundaries)]


def all_run(denoiser: Denoiser, timesteps: Sequence[float] | Tensor) -> bool:
    """Whether every denoiser has a step on a schedule; policies exist only for schedules on which this holds."""
    ends = (0, *denoiser.first_steps(timesteps), len(timesteps))
    return all(before < after for before, after in pairwise(ends))


def check_all_run(denoiser: Denoiser, timesteps: Sequence[float]) -> None:
    """Refuse a schedule on which a denoiser has no step. Raises UsageError."""
    if not all_run(denoiser, timesteps):
        begin = ", ".join(map(str, (0, *denoiser.first_steps(timesteps))))
        raise UsageError(
            f"{worded('--steps', 'sigmas')}: of {len(timesteps)} steps some of the model's denoisers have none "
            f"(they begin at steps {begin})",
            remedy="use more steps",
        )
