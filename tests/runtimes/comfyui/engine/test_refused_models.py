"""MODELs of ComfyUI's engine that a policy is not for, and those that other nodes have changed."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import torch
from comfyui_models import engine_model
from comfyui_runs import run

from budc.runtimes.admission.settings import UncalibratedWarning
from budc.runtimes.comfyui.apply import apply
from budc.schema.errors import (
    CacheConflict,
    CalibrationMismatch,
    UnsupportedModel,
    WeightsMismatch,
)
from budc.schema.policy import PolicyDocument


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
