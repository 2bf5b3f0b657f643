"""What a metric of decoded frames is: its definition, what it needs, and the function that measures one sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from budc.schema.report_names import METRIC_TITLES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Medium = Literal["any", "image", "video"]


class FrameMetric(NamedTuple):
    """A metric that is loaded and can measure."""

    measure: Callable[[Tensor, Tensor, str], float]
    """Takes the frames of one sample, (3, frames, rows, columns), RGB in 0..1 on the CPU, those of the full run, of the
    same shape, and the prompt. An image is one frame."""
    weights: str | None = None
    """Digest of the files that its network was loaded from; None for a metric without."""


@dataclass(frozen=True)
class MetricKind:
    """A metric by its definition. Nothing is loaded yet, and no numerical library imported."""

    name: str
    """As `--metrics` takes it and reports have it."""
    load: Callable[[Path | None, torch.device], FrameMetric]
    """Takes the metric's own folder of weights, None for one without, and the device that networks run on."""
    unit: str | None = None
    higher_is_better: bool = True
    medium: Medium = "any"
    """What it can be measured on."""
    compares: bool = True
    """Whether it compares with the reference; if not, the frames are judged by themselves, with their prompt."""
    needs: tuple[str, ...] = ()
    """Packages that it needs, as pip calls them; they come with budc[metrics]."""
    weights: str | None = None
    """The files that it needs in its folder of weights, in words; None where it needs none."""
    least_side: int = 1
    """Pixels that rows and columns must have at least."""

    @property
    def title(self) -> str:
        """As sentences and tables have it."""
        return METRIC_TITLES.get(self.name, self.name)

    def applies(self, frames: int) -> bool:
        """Whether it can be measured on samples of so many frames."""
        return self.medium == "any" or (self.medium == "image") == (frames == 1)

    def worst(self, values: Sequence[float]) -> float:
        """Return the value of the worst sample."""
        return min(values) if self.higher_is_better else max(values)


class NotMeasured(NamedTuple):
    """A metric that cannot be measured here, why not, and what would help."""

    name: str
    reason: str
    remedy: str
