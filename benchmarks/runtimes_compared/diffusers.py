"""The diffusers pipeline with a policy applied."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing
import torch

from budc.runtimes.diffusers import apply
from budc.schema.artifact import read
from runtimes_compared.loop import SEED, Loop


def prepare(path: Path, weights: Path, prompt: str, threads: int, _provider: str) -> Loop:
    """Prepare the pipeline with the policy applied."""
    torch.set_num_threads(threads)
    artifact = read(path)
    pipe, _ = timing.load(artifact.document)
    shape, sampler = artifact.document.shape, artifact.document.sampler
    cond, uncond = pipe.encode_prompt(prompt, negative_prompt="", max_sequence_length=shape.text_tokens)
    seen: dict[str, Any] = {}
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _m, _a, inputs: seen.update(inputs), with_kwargs=True
    )

    def run(on_step: Callable[[int], object] | None) -> Any:
        def after(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            assert on_step is not None
            on_step(step)
            return tensors

        return pipe(
            prompt_embeds=cond,
            negative_prompt_embeds=uncond,
            height=shape.height,
            width=shape.width,
            num_frames=shape.frames,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=torch.Generator().manual_seed(SEED),
            output_type="latent",
            callback_on_step_end=None if on_step is None else after,
        ).frames

    run(None)
    hook.remove()
    apply(pipe, artifact, allow_unsigned=True, weights_dir=weights)

    def forward() -> None:
        with torch.no_grad():
            for embeddings in (cond, uncond):
                pipe.transformer(**{**seen, "encoder_hidden_states": embeddings})

    on_cuda = torch.cuda.is_available()
    return Loop(
        lambda on_step: run(on_step).float().cpu().numpy(),
        forward,
        torch.cuda.synchronize if on_cuda else lambda: None,
    )
