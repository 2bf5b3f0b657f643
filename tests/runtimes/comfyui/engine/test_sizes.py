"""Policies for several sizes on ComfyUI's engine."""

from typing import Any

import msgspec
import pytest
import torch
from comfyui_runs import ROWS, run

from budc.runtimes.admission.trust import TrustedPolicy
from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.nodes import ApplyPolicy, PolicySampler
from budc.schema.errors import CalibrationMismatch, UsageError
from budc.schema.policy import BranchPolicy, FurtherShape, PolicyDocument


def test_a_size_has_sigmas_and_predictors_of_its_own(patcher: Any, document: PolicyDocument) -> None:
    sigmas = [*(0.9 * sigma for sigma in document.sampler.sigmas[:-1]), 0.0]
    rows = [[0.5 * weight for weight in row] for row in ROWS]
    wide = FurtherShape(
        height=16,
        width=48,
        frames=5,
        quality=document.quality,
        sigmas=sigmas,
        timesteps=[1000 * sigma for sigma in sigmas[:-1]],
        branches=[BranchPolicy.of(["cond", "uncond"], rows)],
    )
    policy = TrustedPolicy(msgspec.structs.replace(document, further_shapes=[wide]))
    (model,) = ApplyPolicy().apply(patcher, policy, False)
    sampler, given, _, width, height, frames = PolicySampler().settings(policy, 48)
    assert (width, height, frames) == (48, 16, 5)
    assert given.tolist() == pytest.approx(sigmas)
    start = torch.randn(1, 16, 2, 2, 6, generator=torch.Generator().manual_seed(0))
    actual = run(model, document, noise=start, sampler=sampler, sigmas=given)
    # The same as a policy that has this size alone.
    shape = msgspec.structs.replace(document.shape, width=48)
    alone = msgspec.structs.replace(policy.document.of_size(5, 16, 48), shape=shape, further_shapes=[])
    expected = run(apply(patcher, alone), alone, noise=start)
    assert torch.equal(actual, expected)
    assert torch.equal(run(model, document), run(apply(patcher, document), document))
    with pytest.raises(
        CalibrationMismatch, match=r"sigmas: the policy has 0.899999 at step 0, this run has 0.999999"
    ):
        run(model, document, noise=start)
    with pytest.raises(
        UsageError, match="size: the policy has 32x16x5, 48x16x5, this node asks for 64x16x5; choose"
    ):
        PolicySampler().settings(policy, 64)
