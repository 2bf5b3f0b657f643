"""What the runtimes of the conformance suite share on a Wan: a call of its pipeline, first noise, counted evaluations."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from budc.runtimes.onnxruntime.noise import seeded_noise
from budc.runtimes.testing import STEPS, RunRecord
from budc.schema.policy import SamplerBinding

PROMPT, SEED = "a small red circle moves left over stripes", 7


def first_noise(size: Any) -> Any:
    """Return the noise (1, 16, frames, rows, columns) of a run; `size` is a profile, or the shape of a policy."""
    return seeded_noise((1, 16, (size.frames - 1) // 4 + 1, size.height // 8, size.width // 8), SEED)


def call_pipeline(
    pipe: Any,
    size: Any,
    sampler: SamplerBinding,
    *,
    steps: int = STEPS,
    negative: str | None = None,
    after: Any = None,
) -> Any:
    """Return the final latents of a pipeline of diffusers; `after` is called after every step."""
    second = {"guidance_scale_2": sampler.experts[0].guidance} if sampler.experts else {}
    return pipe(
        PROMPT,
        negative_prompt=negative,
        height=size.height,
        width=size.width,
        num_frames=size.frames,
        max_sequence_length=size.text_tokens,
        guidance_scale=sampler.guidance,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(SEED),
        output_type="latent",
        callback_on_step_end=after,
        **second,
    ).frames


@contextlib.contextmanager
def counted_evaluations(networks: Sequence[Any], record: RunRecord) -> Iterator[None]:
    """Count in `record` the rows that enter the first block of each network, for the length of a with-block."""
    record.evaluations_of = [0] * len(networks)

    def entered(index: int, args: Any, kwargs: Any) -> None:
        rows = len(args[0] if args else kwargs["hidden_states"])
        record.evaluations += rows
        record.evaluations_of[index] += rows

    hooks = [
        network.blocks[0].register_forward_pre_hook(
            lambda _module, args, kwargs, index=index: entered(index, args, kwargs), with_kwargs=True
        )
        for index, network in enumerate(networks)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
