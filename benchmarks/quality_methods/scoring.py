"""From final latents to a row of the results: errors, PSNR, SSIM, evaluations, cost."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pytorch_msssim import ssim
from torch import Tensor

from budc.compiler.rollouts.metrics import latent_errors, latent_metric, psnrs
from quality_methods.outcome import Outcome
from quality_methods.setting import Setting


class Scorer:
    """Scores outcomes of one model; the full run is decoded once."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    @cached_property
    def _decode(self) -> Any:
        model = self._setting.model
        return model.adapter.decoder(model.folder, model.profile, model.device)

    @cached_property
    def _reference(self) -> list[Tensor]:
        return [self._decode(latents[None]) for latents in self._setting.held_out.run.latents]

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """Return the figures of a row and its values per sample."""
        errors = latent_errors(outcome.latents, self._setting.held_out.run.latents)
        psnr, similarity = [], []
        for latents, reference in zip(outcome.latents, self._reference, strict=True):
            frames = self._decode(latents[None])
            psnr += psnrs(frames, reference)
            similarity.append(frame_ssim(frames, reference))
        metric = latent_metric(errors)
        return {
            "error": {
                "geometricMean": metric.geometric_mean,
                "mean": metric.mean,
                "standardError": metric.standard_error,
                "p95": metric.p95,
                "max": metric.worst,
            },
            "psnr": _summary(psnr),
            "ssim": _summary(similarity),
            "nfe": _summary(outcome.nfe),
            "searchForwards": outcome.forwards,
            "searchForwardsUnshared": outcome.unshared or outcome.forwards,
            "chosen": outcome.chosen,
            "samples": {
                name: [float(f"{value:.6g}") for value in values]
                for name, values in {
                    "error": errors,
                    "psnr": psnr,
                    "ssim": similarity,
                    "nfe": outcome.nfe,
                }.items()
            },
        }


def frame_ssim(frames: Tensor, reference: Tensor) -> float:
    """Return the mean SSIM over the frames of one clip (1, channels, frames, rows, columns) in 0..1."""
    pair = [clip[0].transpose(0, 1).contiguous() for clip in (frames, reference)]
    return float(ssim(*pair, data_range=1.0, size_average=True))


def _summary(values: Sequence[float]) -> dict[str, float]:
    spread = statistics.pstdev(values)
    return {"mean": statistics.fmean(values), "std": spread, "min": min(values), "max": max(values)}
