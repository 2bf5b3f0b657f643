"""The diffusers pipeline with a policy applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timing
import torch

from budc.cli.dependencies import quiet_libraries
from budc.policies.profile import load_profile
from budc.runtimes.diffusers.apply import apply
from budc.runtimes.diffusers.pipeline import load_pipeline
from budc.schema.artifact import read
from runtimes_compared.loop import SEED, Loop


def prepare(path: Path, weights: Path, prompt: str, threads: int, _provider: str) -> Loop:
    """Prepare the pipeline with the policy applied."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False  # ONNX Runtime runs without it too
    quiet_libraries()
    artifact = read(path)
    bound = artifact.document.pipeline()
    pipe = load_pipeline(load_profile(bound.profile), weights=weights, dtype=bound.shape.dtype)
    pipe.set_progress_bar_config(disable=True)
    sampler, branches = artifact.document.sampler, len(artifact.document.budget.branches)
    arguments = timing.arguments(pipe, artifact.document, prompt)

    def run(on_step: Callable[[int], object] | None) -> Any:
        def after(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            assert on_step is not None
            on_step(step)
            return tensors

        return pipe(
            **arguments,
            num_inference_steps=sampler.steps,
            generator=torch.Generator().manual_seed(SEED),
            callback_on_step_end=None if on_step is None else after,
        )[0]

    with without_transformer(pipe):
        with timing.forward_inputs(pipe, branches) as forward_inputs:
            run(None)
        pipeline_seconds = timing.seconds(lambda: run(None), repeats=5)
    policy = timing.for_embeddings(artifact.document)
    apply(pipe, policy, allow_unsigned=True, weights_dir=weights)

    def forward() -> None:
        with torch.no_grad():
            for inputs in forward_inputs:
                pipe.transformer(**inputs)

    on_cuda = torch.cuda.is_available()
    return Loop(
        lambda on_step: run(on_step).float().cpu().numpy(),
        forward,
        torch.cuda.synchronize if on_cuda else lambda: None,
        {"pipelineSeconds": pipeline_seconds},
    )


@contextmanager
def without_transformer(pipe: Any) -> Iterator[None]:
    """Let the transformer return at once, so that only the time of pipeline and scheduler is left."""
    transformer = pipe.transformer
    transformer.forward = lambda hidden_states, **_: (hidden_states,)
    try:
        yield
    finally:
        del transformer.forward
