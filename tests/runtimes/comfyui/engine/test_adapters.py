"""LoRA on a MODEL of ComfyUI's engine."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comfyui_models import engine_model
from comfyui_runs import ROWS, run

from budc.runtimes.comfyui.apply import apply
from budc.schema.errors import (
    CalibrationMismatch,
)
from budc.schema.policy import PolicyDocument

LORA = {"diffusion_model.blocks.0.self_attn.q.weight": ("diff", (torch.ones(32, 32),))}


def test_lora_before_or_after_the_policy_is_refused(patcher: Any, document: PolicyDocument) -> None:
    before = patcher.clone()
    before.add_patches(LORA)
    after = apply(patcher, document).clone()
    after.add_patches(LORA)
    for model in (apply(before, document), after):
        with pytest.raises(CalibrationMismatch, match=r"adapters: .* none; this MODEL has LoRA on 1 weights"):
            run(model, document)


def test_a_policy_for_any_lora_runs_with_one_and_the_weights_are_told_without_it(
    wan: Any, patcher: Any, compiled_for: Callable[..., PolicyDocument]
) -> None:
    document = compiled_for(wan, [not row for row in ROWS], ROWS, adapters="any")
    styled = patcher.clone()
    styled.add_patches(LORA)
    plain, with_lora = run(apply(patcher, document), document), run(apply(styled, document), document)
    assert not torch.allclose(plain, with_lora)
    # The LoRA is merged into the weights in memory now.
    fresh = engine_model(wan.transformer)
    fresh.add_patches(LORA)
    run(fresh, document)
    assert torch.equal(run(apply(fresh, document), document), with_lora)
