"""Frames of an evaluation that are kept: of the prompts that a policy does best, in the middle and worst."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from budc.compiler.comparison.film_strip import film_strips
from budc.compiler.models.model import LoadedModel
from budc.runtimes.sampling.device_memory import device_memory
from budc.schema.kept_frames import KeptFrames, PromptFrames, Rank
from budc.schema.printable import printable
from budc.schema.report_names import HIGHER_IS_BETTER, LATENT_MSE, PSNR

_MOST_TEXT = 1024


def ranked_prompts(values: Sequence[float], *, higher_is_better: bool) -> dict[Rank, int]:
    """Return which prompt is the best, the median and the worst by its value; of two prompts there is no median."""
    order = sorted(range(len(values)), key=values.__getitem__, reverse=higher_is_better)
    ranks: dict[Rank, int] = {"best": order[0], "median": order[(len(order) - 1) // 2], "worst": order[-1]}
    if len(order) < 3:
        del ranks["median"]
    if len(order) == 1:
        del ranks["best"]
    return ranks


def ranking_metric(samples: Mapping[str, Sequence[float]]) -> str:
    """Return the metric by which prompts are ranked: PSNR; where it was not measured another of frames, then errors."""
    known = [name for name in samples if name in HIGHER_IS_BETTER and name != LATENT_MSE]
    return PSNR if PSNR in known else next(iter(known), LATENT_MSE)


def keep_frames(
    decode: Callable[[Tensor], Tensor],
    policy: Tensor,
    full: Tensor,
    prompts: Sequence[str],
    samples: Mapping[str, Sequence[float]],
) -> tuple[KeptFrames, dict[str, bytes]]:
    """Return the frames that are kept of final latents (N, ...), and the files by their names.

    Args:
        decode: final latents (1, ...) to frames (1, 3, frames, rows, columns), RGB in 0..1.
        policy, full: final latents of the policy and of the full run.
        prompts: the texts, N of them.
        samples: the policy's values of each metric, prompt by prompt.

    Raises:
        DeviceMemory: one sample does not fit into the device's memory.
    """
    metric = ranking_metric(samples)
    ranks = ranked_prompts(samples[metric], higher_is_better=HIGHER_IS_BETTER.get(metric, False))
    clips = []
    for index in ranks.values():
        with device_memory(
            "decoding a sample", "evaluate without --keep-frames, or on a device with more memory"
        ):
            clips += [decode(latents[index : index + 1])[0].float().cpu() for latents in (full, policy)]
    strips = film_strips(clips)
    digests = [f"sha256:{hashlib.sha256(file).hexdigest()}" for file in strips.files]
    kept = KeptFrames(
        ranked_by=metric,
        height=strips.height,
        width=strips.width,
        frames=strips.frames,
        lossless=strips.lossless,
        prompts=[
            PromptFrames(rank=rank, prompt=index, text=_line(prompts[index]), full=whole, policy=own)
            for (rank, index), whole, own in zip(ranks.items(), digests[::2], digests[1::2], strict=True)
        ],
    )
    contents = dict(zip(digests, strips.files, strict=True))
    return kept, {name: contents[digest] for name, digest in kept.files.items()}


def load_decoder(model: LoadedModel) -> Callable[[Tensor], Tensor]:
    """Load a model's VAE; see `keep_frames`. Raises DeviceMemory."""
    model.denoisers.offload()
    with device_memory("the VAE", "evaluate without --keep-frames, or on a device with more memory"):
        return model.adapter.decoder(model.folder, model.profile, model.device)


def _line(text: str) -> str:
    """Return a prompt as one line that an evaluation can have."""
    return printable(" ".join(text.split()), _MOST_TEXT)
