"""Runs on ComfyUI's engine as workflows make them: prompts in a row, batches, cancelled runs, other models and nodes."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from comfyui_models import engine_model, sample
from torch import Tensor

from budc.runtimes.admission.settings import UncalibratedWarning
from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.policy_runs import KEY
from budc.runtimes.comfyui.sampler import policy_sampler
from budc.schema.errors import (
    BudcError,
    CacheConflict,
    CalibrationMismatch,
    RefusedRun,
    UnsupportedModel,
    WeightsMismatch,
)
from budc.schema.policy import BranchPolicy, PolicyDocument

ROWS = ((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25))
OTHER_ROWS = ((), (), (1.0,), (1.0,), (), (1.0,))
GUIDANCE = 5.0


@pytest.fixture
def document(wan: Any, compiled_for: Callable[..., PolicyDocument]) -> PolicyDocument:
    return compiled_for(wan, [not row for row in ROWS], ROWS)


@pytest.fixture
def patcher(wan: Any) -> Any:
    return engine_model(wan.transformer)


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


def test_other_weights_are_refused_unless_allowed(wan: Any, document: PolicyDocument) -> None:
    torch.nn.init.normal_(wan.transformer.proj_out.bias)
    other = engine_model(wan.transformer)
    with pytest.raises(WeightsMismatch, match="transformer in this MODEL has tensor root"):
        apply(other, document)
    with pytest.warns(UncalibratedWarning, match="weights"):
        apply(other, document, allow_uncalibrated=True)


def test_weights_of_another_architecture_are_always_refused(patcher: Any, document: PolicyDocument) -> None:
    denoiser = msgspec.structs.replace(document.model.denoisers[0], architecture="sha256:" + "0" * 64)
    model = msgspec.structs.replace(document.model, denoisers=[denoiser])
    with pytest.raises(WeightsMismatch, match="other tensors"):
        apply(patcher, msgspec.structs.replace(document, model=model), allow_uncalibrated=True)


def test_another_network_is_refused(flux: Any, patcher: Any, compiled_for: Any) -> None:
    with pytest.raises(UnsupportedModel, match="is Flux in ComfyUI; this MODEL is a WanModel"):
        apply(patcher, compiled_for(flux))


def test_a_second_policy_on_the_same_model_is_refused(patcher: Any, document: PolicyDocument) -> None:
    with pytest.raises(CacheConflict, match="the policy tiny is on this MODEL already"):
        apply(apply(patcher, document), document)


def _options(**options: Any) -> Callable[[Any], None]:
    return lambda model: model.model_options.update(options)


def _wrapped(model: Any) -> None:
    model.add_wrapper_with_key(
        "diffusion_model", "easycache", lambda run, *args, **kwargs: run(*args, **kwargs)
    )


NODES: dict[str, tuple[Callable[[Any], None], str]] = {
    "a cache": (_wrapped, "diffusion_model of easycache"),
    "a function around the network": (
        lambda model: model.set_model_unet_function_wrapper(lambda run, given: run()),
        "model_function_wrapper",
    ),
    "a rule of guidance": (
        lambda model: model.set_model_sampler_post_cfg_function(lambda given: given["denoised"]),
        "sampler_post_cfg_function",
    ),
    "replaced blocks": (
        lambda model: model.set_model_patch_replace(lambda *_: None, "dit", "double_block", 0),
        "dit",
    ),
    "a patch after blocks": (
        lambda model: model.set_model_double_block_patch(lambda given: given),
        "double_block",
    ),
    "attention": (lambda model: model.set_model_attn1_patch(lambda *_: None), "attn1_patch"),
    "windows": (_options(context_handler=object()), "context_handler"),
}


@pytest.mark.parametrize("name", list(NODES))
def test_a_node_that_changes_the_model_is_refused(patcher: Any, document: PolicyDocument, name: str) -> None:
    change, what = NODES[name]
    model = apply(patcher, document)
    change(model)
    with pytest.raises(CalibrationMismatch, match=f"nodes: another node has put {what}"):
        run(model, document)


def test_another_parametrisation_is_refused_and_another_shift_changes_nothing(
    patcher: Any, document: PolicyDocument
) -> None:
    from comfy import model_sampling

    model = apply(patcher, document)
    expected = run(model, document)

    class Shifted(model_sampling.ModelSamplingDiscreteFlow, model_sampling.CONST):
        pass

    class Noise(model_sampling.ModelSamplingDiscreteFlow, model_sampling.EPS):
        pass

    shifted, noise_prediction = model.clone(), model.clone()
    other = Shifted()
    other.set_parameters(shift=7.0, multiplier=1.0)
    shifted.add_object_patch("model_sampling", other)
    assert torch.equal(run(shifted, document), expected)
    noise_prediction.add_object_patch("model_sampling", Noise())
    with pytest.raises(CalibrationMismatch, match="model sampling: the policy is for flow matching"):
        run(noise_prediction, document)


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
