"""Metrics of decoded frames, one a module, by the names that `--metrics` takes.

    kinds = choose_metrics("psnr,ssim", frames=1)
    metrics, missing = load_metrics(kinds, weights, device)
    value = metrics["ssim"].measure(frames, reference, prompt)

Importing this package loads no numerical library; each metric imports its own when it is loaded.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from budc.compiler.metrics.clip_score import CLIP_SCORE
from budc.compiler.metrics.flip import FLIP
from budc.compiler.metrics.hpsv2 import HPSV2
from budc.compiler.metrics.image_reward import IMAGE_REWARD
from budc.compiler.metrics.kind import FrameMetric, MetricKind, NotMeasured
from budc.compiler.metrics.lpips import LPIPS, LPIPS_VGG
from budc.compiler.metrics.lpips_files import too_small
from budc.compiler.metrics.psnr import PSNR
from budc.compiler.metrics.ssim import SSIM
from budc.compiler.metrics.ssimulacra2 import SSIMULACRA2
from budc.compiler.metrics.vmaf import VMAF
from budc.compiler.metrics.xpsnr import XPSNR
from budc.option_names import option
from budc.progress import hashing
from budc.schema.canonical import digest
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import DeviceMemory, MissingExtra, ModelError, UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

METRICS: Mapping[str, MetricKind] = {
    kind.name: kind
    for kind in (
        *(PSNR, SSIM, FLIP, SSIMULACRA2, VMAF, XPSNR),
        *(LPIPS, LPIPS_VGG, CLIP_SCORE, IMAGE_REWARD, HPSV2),
    )
}


def choose_metrics(text: str | None, frames: int) -> tuple[MetricKind, ...]:
    """Return the metrics that `--metrics` lists, or all that can be measured on samples of so many frames.

    Args:
        text: names, separated by commas; None for all that apply.
        frames: of a sample; 1 for images.

    Raises:
        UsageError: there is no metric of that name (the nearest is suggested), or it is not for this medium.
    """
    if text is None:
        return tuple(kind for kind in METRICS.values() if kind.applies(frames))
    names = dict.fromkeys(name.strip() for name in text.split(","))
    return tuple(_kind(name, frames) for name in names)


def _kind(name: str, frames: int) -> MetricKind:
    kind = METRICS.get(name)
    applicable = ", ".join(other.name for other in METRICS.values() if other.applies(frames))
    if kind is None:
        near = difflib.get_close_matches(name.lower(), METRICS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"use some of {applicable}, separated by commas"
        raise UsageError(f"{option('metrics')}: no metric named {name[:100]!r}", remedy=hint)
    if not kind.applies(frames):
        medium = "images" if frames == 1 else f"clips of {frames} frames"
        raise UsageError(
            f"{option('metrics')}: {kind.title} is a metric of {kind.medium}s, and these are {medium}",
            remedy=f"leave it out; use some of {applicable}",
        )
    return kind


def load_metrics(
    kinds: Iterable[MetricKind],
    weights: Path | None,
    device: torch.device,
    size: tuple[int, int] | None = None,
) -> tuple[dict[str, FrameMetric], list[NotMeasured]]:
    """Load metrics by name, as far as they can be measured here.

    Args:
        kinds: what to load.
        weights: the folder of `--metric-weights`; each metric's own folder in it has the metric's name.
        device: where their networks run.
        size: rows and columns of the frames; None leaves it to `measure` to refuse frames that are too small.

    Returns:
        The metrics that are loaded, and those that are not, each with its reason: a package or weights that are
        missing or of no use, or frames that are too small.
    """
    loaded, missing = {}, []
    for kind in kinds:
        found = _load(kind, weights, device, size)
        if isinstance(found, NotMeasured):
            missing.append(found)
        else:
            loaded[kind.name] = found
    return loaded, missing


def _load(
    kind: MetricKind, weights: Path | None, device: torch.device, size: tuple[int, int] | None
) -> FrameMetric | NotMeasured:
    if size and (reason := too_small(kind.least_side, *size)):
        return NotMeasured(kind.name, reason, "leave it out, or generate larger frames")
    folder = weights / kind.name if weights and kind.weights else None
    if kind.weights and (folder is None or not folder.is_dir()):
        reason = f"{folder} is no folder" if folder else "its weights are needed"
        given = option("metric-weights", weights or "DIR")
        return NotMeasured(kind.name, reason, f"{given} with {kind.weights} in {kind.name}/")
    try:
        metric = kind.load(folder, device)
        return _of_size(kind, metric, digest_of(folder) if folder else None)
    except ImportError as error:
        reason = f"{', '.join(kind.needs)} cannot be imported: {error}"
        return NotMeasured(kind.name, reason, "pip install 'budc[metrics]'")
    except (MissingExtra, ModelError, DeviceMemory) as error:
        return NotMeasured(kind.name, str(error), error.remedy)


def digest_of(folder: Path) -> str:
    """Return a digest of the names and contents of a folder's files."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    found = DigestCache.of_user(watch=hashing)(files)
    return digest({path.name: found[path] for path in files})


def _of_size(kind: MetricKind, metric: FrameMetric, weights: str | None) -> FrameMetric:
    """Return the metric, which refuses frames that are too small for it."""
    from budc.runtimes.sampling.device_memory import device_memory

    def measure(frames: Tensor, reference: Tensor, prompt: str) -> float:
        if reason := too_small(kind.least_side, *frames.shape[-2:]):
            raise UsageError(
                f"{option('metrics')}: {kind.title}: {reason}",
                remedy="leave it out, or generate larger frames",
            )
        with device_memory(f"measuring {kind.title}", "leave it out, or use a device with more memory"):
            return metric.measure(frames, reference, prompt)

    return FrameMetric(measure, weights)


__all__ = [
    "METRICS",
    "FrameMetric",
    "MetricKind",
    "NotMeasured",
    "choose_metrics",
    "digest_of",
    "load_metrics",
    "too_small",
]
