"""Runs on ComfyUI's engine as workflows make them: prompts in a row, batches, cancelled runs, two models, previews."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from comfyui_models import engine_model
from comfyui_runs import OTHER_ROWS, ROWS, counted, noise, run, text
from torch import Tensor

from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.policy_runs import KEY
from budc.schema.errors import (
    RefusedRun,
)
from budc.schema.policy import BranchPolicy, PolicyDocument


def test_several_prompts_in_a_row(patcher: Any, document: PolicyDocument) -> None:
    model = apply(patcher, document)
    rows = counted(model)
    first = run(model, document)
    other = run(model, document, positive=[[text(3), {}]])
    assert torch.equal(run(model, document), first)
    assert not torch.allclose(other, first)
    # Three computed steps a run, both branches in one forward.
    assert rows == [2] * 9
    assert model.get_attachment(KEY).machine.held == 0


def test_samples_of_a_batch_are_those_of_runs_by_themselves(patcher: Any, document: PolicyDocument) -> None:
    model = apply(patcher, document)
    together = run(model, document, noise=noise(3))
    alone = [run(model, document, noise=row[None]) for row in noise(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-5)


def test_separate_masks_run_branches_one_by_one(
    wan: Any, patcher: Any, compiled_for: Callable[..., PolicyDocument]
) -> None:
    branches = [BranchPolicy.of(["cond"], ROWS), BranchPolicy.of(["uncond"], OTHER_ROWS)]
    document = compiled_for(wan, [not row for row in ROWS], branches=branches)
    model = apply(patcher, document)
    rows = counted(model)
    run(model, document, noise=noise(2))
    assert rows == [2] * 6


def test_a_cancelled_run_leaves_nothing_behind(patcher: Any, document: PolicyDocument) -> None:
    import comfy.model_management as management

    model = apply(patcher, document)
    expected = run(model, document)

    def cancel(step: int, *_: Any) -> None:
        if step == 2:
            management.interrupt_current_processing()
            # As the progress bar of a node does after each step.
            management.throw_exception_if_processing_interrupted()

    with pytest.raises(management.InterruptProcessingException):
        run(model, document, callback=cancel)
    assert model.get_attachment(KEY).machine.held == 0
    assert torch.equal(run(model, document), expected)


def test_previews_see_every_step(patcher: Any, document: PolicyDocument) -> None:
    seen: list[tuple[int, int, bool]] = []

    def preview(step: int, denoised: Tensor, latents: Tensor, total: int) -> None:
        seen.append((step, total, denoised.shape == latents.shape == noise().shape))

    run(apply(patcher, document), document, callback=preview)
    assert seen == [(step, 6, True) for step in range(6)]


def test_the_model_itself_and_its_other_clones_stay_as_they_are(
    patcher: Any, document: PolicyDocument
) -> None:
    plain = run(patcher, document)
    every = msgspec.structs.replace(document, policy=_policy(document, ((),) * 6))
    first, second = apply(patcher, document), apply(patcher, every)
    expected = run(first, document)
    run(second, document)
    assert torch.equal(run(first, document), expected)
    assert torch.equal(run(patcher, document), plain)
    assert not torch.allclose(expected, plain)


def _policy(document: PolicyDocument, rows: Any) -> Any:
    branches = [BranchPolicy.of(["cond", "uncond"], rows)]
    return msgspec.structs.replace(document.policy, branches=branches)


def test_two_models_in_one_workflow(
    patcher: Any, wan: Any, document: PolicyDocument, compiled_for: Callable[..., PolicyDocument]
) -> None:
    torch.nn.init.normal_(wan.transformer.proj_out.bias)
    other_document = compiled_for(wan, [not row for row in OTHER_ROWS], OTHER_ROWS)
    other = apply(engine_model(wan.transformer), other_document)
    model = apply(patcher, document)
    alone = run(model, document), run(other, other_document)
    inside: list[Tensor] = []

    def begin(step: int, *_: Any) -> None:
        if step == 3:
            inside.append(run(other, other_document))

    assert torch.equal(run(model, document, callback=begin), alone[0])
    assert torch.equal(inside[0], alone[1])


def test_a_second_run_of_the_same_model_inside_the_first_is_refused(
    patcher: Any, document: PolicyDocument
) -> None:
    model = apply(patcher, document)
    expected = run(model, document)

    def begin(step: int, *_: Any) -> None:
        if step == 3:
            with pytest.raises(RefusedRun, match="begun in the same thread"):
                run(model, document)

    assert torch.equal(run(model, document, callback=begin), expected)
