"""Pipelines on a device that is not the CPU: a policy's tensors stay where the model is."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from elsewhere import ELSEWHERE, Remote, elsewhere  # noqa: E402

from budc.runtimes.sampling import quantized  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402


@pytest.mark.parametrize("payload", ["trunk-residual", "velocity"])
def test_a_pipeline_under_a_policy(
    pipe: Any,
    run: Callable[..., Any],
    compiled_for: Callable[..., PolicyDocument],
    applied_quietly: Callable[..., Any],
    payload: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # They stand for plain tensors of a device, not for a quantisation library's.
    monkeypatch.setattr(quantized, "PLAIN", (*quantized.PLAIN, Remote))
    document = compiled_for(pipe, payload=payload)
    # Embeddings that a caller gives are on the device already.
    text = {"prompt_embeds": torch.ones(1, 5, 16), "pooled_prompt_embeds": torch.ones(1, 8)}
    given = text if type(pipe).__name__.startswith("Flux") else {}
    with applied_quietly(pipe, document):
        here = run(pipe, **given)
    with elsewhere():
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):
                part.to(ELSEWHERE)
        with applied_quietly(pipe, document) as applied_policy:
            there = run(pipe, **{name: value.to(ELSEWHERE) for name, value in given.items()})
            assert isinstance(there, Remote)
            assert applied_policy.uncalibrated == ()
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-4)
