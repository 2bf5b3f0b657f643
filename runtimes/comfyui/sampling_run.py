"""What ComfyUI is about to sample: read off a guider and its arguments, before anything is computed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

BRANCHES = ("cond", "uncond")
"""The guidance branches by ComfyUI's numbers for them, and by `ROLES`."""

ROLES = {"cond": "positive", "uncond": "negative"}
"""Branch → the conditioning that a guider has for it."""


@dataclass(frozen=True)
class SamplingRun:
    """One call of a sampler.

    `sigmas` are (steps + 1,), the terminal 0 included; `noise` is (batch, channels, [frames,] rows, columns).
    """

    guider: Any
    sampler: Any
    sigmas: Tensor
    noise: Tensor
    latents: Tensor
    mask: Tensor | None

    @property
    def patcher(self) -> Any:
        """The MODEL that is sampled, with what nodes after the policy's have added to it."""
        return self.guider.model_patcher

    @property
    def options(self) -> Mapping[str, Any]:
        """The MODEL's options, as nodes and hooks have left them."""
        options: Mapping[str, Any] = self.guider.model_options
        return options

    @property
    def cfg(self) -> float:
        """ComfyUI's guidance scale; 1 is none."""
        return float(self.guider.cfg)

    @property
    def branches(self) -> tuple[str, ...]:
        """The guidance branches that run at every step."""
        unguided = math.isclose(self.cfg, 1.0) and not self.options.get("disable_cfg1_optimization")
        names = BRANCHES[:1] if unguided else BRANCHES
        return tuple(name for name in names if self.conditioning(name))

    def conditioning(self, branch: str) -> Sequence[Mapping[str, Any]]:
        """Return the entries of a branch's conditioning: one, where nodes have not combined several."""
        entries: Sequence[Mapping[str, Any]] = self.guider.conds.get(ROLES[branch]) or ()
        return entries

    @property
    def size(self) -> tuple[int, int, int]:
        """Frames, height and width in pixels."""
        form = self.patcher.model.latent_format
        *frames, rows, columns = self.noise.shape[2:]
        scale = int(getattr(form, "spacial_downscale_ratio", 8))
        period = int(getattr(form, "temporal_downscale_ratio", 1))
        return (frames[0] - 1) * period + 1 if frames else 1, rows * scale, columns * scale
