"""Latency: seconds of denoising loops, measured in turns so that a machine's drift reaches all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch

from budc.progress import progress
from budc.schema.evaluation import Latency


def time_loops(
    loops: Mapping[str, Callable[[], object]], repeats: int, device: torch.device, label: str
) -> dict[str, Latency]:
    """Return the latency of each loop: `repeats` rounds over all of them, after one that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    peaks: dict[str, int] = {}
    with progress(label, (repeats + 1) * len(loops)) as bar:
        for _ in range(repeats + 1):
            for name, loop in loops.items():
                _reset_peak(device)
                _synchronize(device)
                started = time.perf_counter()
                loop()
                _synchronize(device)
                seconds[name].append(time.perf_counter() - started)
                peaks[name] = max(peaks.get(name, 0), _peak(device))
                bar.advance()
    return {
        name: Latency(
            median=statistics.median(measured[1:]),
            fastest=min(measured[1:]),
            slowest=max(measured[1:]),
            repeats=repeats,
            peak_memory=peaks[name] or None,
        )
        for name, measured in seconds.items()
    }


def _synchronize(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
