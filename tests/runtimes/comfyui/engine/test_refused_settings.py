"""Settings of a run on ComfyUI's engine, compared with those of the policy."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from comfyui_models import engine_model
from comfyui_runs import ROWS, counted, run, text
from torch import Tensor

from budc.runtimes.admission.settings import UncalibratedWarning
from budc.runtimes.comfyui.apply import apply
from budc.schema.errors import (
    BudcError,
    CalibrationMismatch,
    RefusedRun,
)
from budc.schema.policy import PolicyDocument


def test_distilled_guidance_is_that_of_the_conditioning(
    flux: Any, compiled_for: Callable[..., PolicyDocument]
) -> None:
    import comfy.samplers

    document = compiled_for(flux)
    model = apply(engine_model(flux.transformer), document)

    def run_with(guidance: float, cfg: float = 1.0) -> Tensor:
        positive = [[torch.ones(1, 5, 16), {"pooled_output": torch.ones(1, 8), "guidance": guidance}]]
        euler = comfy.samplers.sampler_object("euler")
        start = torch.ones(1, 4, 4, 6)
        return run(model, document, noise=start, positive=positive, negative=positive, cfg=cfg, sampler=euler)

    assert torch.isfinite(run_with(3.5)).all()
    with pytest.raises(
        CalibrationMismatch, match=r"guidance: .* for 3.5, this run has 2.0; set FluxGuidance to 3.5"
    ):
        run_with(2.0)
    with pytest.raises(
        CalibrationMismatch, match="branch: the policy has cond, this run asks for cond, uncond"
    ):
        run_with(3.5, cfg=4.0)


RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "steps": ({"sigmas": torch.linspace(1, 0, 5)}, "steps: the policy has 6, this run asks for 4; connect"),
    "sigmas": (
        {"sigmas": torch.linspace(1, 0, 7)},
        "sigmas: the policy has 0.999999 at step 0, this run has 1; connect",
    ),
    "guidance": ({"cfg": 4.0}, "cfg: the policy was calibrated for 5.0, this run has 4.0; set cfg to 5"),
    "no guidance": ({"cfg": 1.0}, r"branch: the policy has cond, uncond, this run asks for cond \(cfg 1\)"),
    "two texts": ({"positive": [[text(), {}], [text(), {}]]}, "conditioning: cond has 2 texts"),
    "an area": ({"negative": [[text(), {"area": (1, 1, 0, 0)}]]}, "conditioning: uncond has area"),
    "a size": (
        {"noise": torch.zeros(1, 16, 2, 2, 6)},
        "width: the policy was calibrated for 32, this run has 48",
    ),
    "frames": (
        {"noise": torch.zeros(1, 16, 3, 2, 4)},
        "frames: the policy was calibrated for 5, this run has 9",
    ),
    "a mask": ({"denoise_mask": torch.ones(1, 1, 2, 2, 4)}, "noise mask: "),
    "an image": ({"latent_image": torch.ones(1, 16, 2, 2, 4)}, "latent image: "),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_a_run_that_does_not_fit_is_refused(patcher: Any, document: PolicyDocument, name: str) -> None:
    options, match = RUNS[name]
    model = apply(patcher, document)
    rows = counted(model)
    with pytest.raises(BudcError, match=match):
        run(model, document, **options)
    assert not rows


def test_text_of_another_length_is_refused(wan: Any, patcher: Any, compiled_for: Any) -> None:
    document = compiled_for(wan, [not row for row in ROWS], ROWS, text_tokens=8)
    model = apply(patcher, document)
    run(model, document)
    longer = [[torch.zeros(1, 16, 16), {}]]
    with pytest.raises(
        CalibrationMismatch, match=r"text tokens: .* for 8, this run has 16; compile a policy"
    ):
        run(model, document, positive=longer)


def test_an_uncalibrated_run_warns_with_both_values(patcher: Any, document: PolicyDocument) -> None:
    model = apply(patcher, document, allow_uncalibrated=True)
    with pytest.warns(UncalibratedWarning, match=r"cfg: the policy was calibrated for 5.0, this run has 4.0"):
        run(model, document, cfg=4.0)


@pytest.mark.parametrize("name", ["heun", "dpmpp_2m", "uni_pc"])
def test_another_sampler_is_refused_with_both_names(
    patcher: Any, document: PolicyDocument, name: str
) -> None:
    import comfy.samplers

    with pytest.raises(CalibrationMismatch, match=r"scheduler: .*UniPCMultistepScheduler, this run has "):
        run(apply(patcher, document), document, sampler=comfy.samplers.sampler_object(name))


def test_a_sampler_of_several_evaluations_is_refused_even_uncalibrated(
    patcher: Any, document: PolicyDocument
) -> None:
    import comfy.samplers

    model = apply(patcher, document, allow_uncalibrated=True)
    with (
        pytest.warns(UncalibratedWarning),
        pytest.raises(RefusedRun, match=r"went from step|none of the policy's"),
    ):
        run(model, document, sampler=comfy.samplers.sampler_object("heun"))


def test_a_negative_prompt_must_be_the_calibrated_one(patcher: Any, document: PolicyDocument) -> None:
    from budc.runtimes.comfyui.nodes import NegativePrompt
    from budc.schema.policy import NegativePrompt as Negative

    sampler = msgspec.structs.replace(document.sampler, negative_prompt=Negative(rule="fixed", text="blurry"))
    document = msgspec.structs.replace(document, sampler=sampler)

    class Clip:
        def tokenize(self, words: str) -> str:
            return words

        def encode_from_tokens_scheduled(self, words: str) -> Any:
            return [[text(len(words)), {"pooled_output": None}]]

    class Opened:
        def __init__(self, document: PolicyDocument) -> None:
            self.document = document

    (negative,) = NegativePrompt().encode(Clip(), Opened(document))
    model = apply(patcher, document)
    run(model, document, negative=negative)
    with pytest.raises(
        CalibrationMismatch, match="negative prompt: cannot be read off its conditioning; connect"
    ):
        run(model, document)
    other = msgspec.structs.replace(
        document,
        sampler=msgspec.structs.replace(sampler, negative_prompt=Negative(rule="fixed", text="ugly")),
    )
    (negative,) = NegativePrompt().encode(Clip(), Opened(other))
    with pytest.raises(CalibrationMismatch, match=r"negative prompt: .*'blurry', this run has 'ugly'"):
        run(model, document, negative=negative)


def test_the_sampler_node_gives_what_the_policy_was_compiled_for(
    patcher: Any, document: PolicyDocument
) -> None:
    from budc.runtimes.admission.trust import TrustedPolicy
    from budc.runtimes.comfyui.nodes import ApplyPolicy, PolicySampler

    policy = TrustedPolicy(document)
    sampler, sigmas, guidance, width, height, frames = PolicySampler().settings(policy)
    assert (guidance, width, height, frames) == (5.0, 32, 16, 5)
    (model,) = ApplyPolicy().apply(patcher, policy, False)
    actual = run(model, document, sampler=sampler, sigmas=sigmas, cfg=guidance)
    assert torch.equal(actual, run(model, document))
