"""Runs on ComfyUI's engine: the small Wan of the tests, a text, noise, and a sampler call as workflows make it."""

from typing import Any

import torch
from comfyui_models import sample
from torch import Tensor

from budc.runtimes.comfyui.sampler import policy_sampler
from budc.schema.policy import PolicyDocument

ROWS = ((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25))
OTHER_ROWS = ((), (), (1.0,), (1.0,), (), (1.0,))
GUIDANCE = 5.0


def text(seed: int = 1) -> Tensor:
    return torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(seed))


def noise(batch: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(batch, 16, 2, 2, 4, generator=torch.Generator().manual_seed(seed))


def run(model: Any, document: PolicyDocument, **options: Any) -> Tensor:
    import comfy.samplers

    arguments: dict[str, Any] = {
        "noise": noise(),
        "positive": [[text(), {}]],
        "negative": [[text(2), {}]],
        "cfg": GUIDANCE,
        "sampler": comfy.samplers.KSAMPLER(policy_sampler(document.sampler)),
        "sigmas": torch.tensor(list(document.sampler.sigmas)),
    }
    return sample(model, **(arguments | options))


def counted(model: Any) -> list[int]:
    rows: list[int] = []
    model.model.diffusion_model.blocks[0].register_forward_hook(
        lambda _m, _i, output: rows.append(len(output))
    )
    return rows
