"""Weights of a MODEL against a policy, on a stand-in of the engine's ModelPatcher."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning
from budc.runtimes.comfyui.families import ENGINE_FAMILIES, engine_family
from budc.runtimes.comfyui.weight_names import FLUX, WAN, Z_IMAGE, diffusers_tensors
from budc.runtimes.comfyui.weights import verify_weights
from budc.runtimes.sampling.tensor_records import tensor_record
from budc.schema.digests import ARCHITECTURE, TENSORS, root_of, shape_record
from budc.schema.errors import UnsupportedModel, WeightsMismatch
from budc.schema.policy import DenoiserBinding

FAMILY = replace(ENGINE_FAMILIES["WanTransformer3DModel"], settings=lambda network: {"eps": 1e-6})


class Patcher:
    """The part of ComfyUI's ModelPatcher that is read."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.model: Any = nn.Module()
        self.model.diffusion_model = nn.Module()
        self._weights = weights
        self.backup: dict[str, Any] = {}

    def model_state_dict(self, prefix: str) -> dict[str, Tensor]:
        return {prefix + name: tensor for name, tensor in self._weights.items()}


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(0)
    names = ("head.head.weight", "blocks.0.self_attn.q.weight", "patch_embedding.weight")
    return {name: torch.randn(3, 2).to(dtype) for name in names}


def binding(tensors: dict[str, Tensor], **fields: Any) -> DenoiserBinding:
    names = {
        "head.head.weight": "proj_out.weight",
        "blocks.0.self_attn.q.weight": "blocks.0.attn1.to_q.weight",
    }
    renamed = {names.get(name, name).encode(): tensor for name, tensor in tensors.items()}
    return DenoiserBinding(
        name="transformer",
        class_name="WanTransformer3DModel",
        tensor_root=root_of(TENSORS, {name: tensor_record(tensor) for name, tensor in renamed.items()}),
        architecture=root_of(ARCHITECTURE, {n: shape_record(tensor.shape) for n, tensor in renamed.items()}),
        **fields,
    )


def test_the_same_values_under_other_names_are_the_same_model() -> None:
    verify_weights(Patcher(weights()), binding(weights()), FAMILY, SettingsCheck())
    other = weights()
    other["head.head.weight"][0, 0] += 1
    with pytest.raises(WeightsMismatch, match="has tensor root"):
        verify_weights(Patcher(other), binding(weights()), FAMILY, SettingsCheck())


def test_layers_that_the_engine_widens_are_told_at_the_precision_of_the_file() -> None:
    in_file = weights(torch.bfloat16)
    in_memory = {**in_file, "patch_embedding.weight": in_file["patch_embedding.weight"].float()}
    verify_weights(Patcher(in_memory), binding(in_file), FAMILY, SettingsCheck())
    in_memory["patch_embedding.weight"][0, 0] += 1e-6
    with pytest.raises(WeightsMismatch, match="has tensor root"):
        verify_weights(Patcher(in_memory), binding(in_file), FAMILY, SettingsCheck())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_model_that_the_engine_widens_as_a_whole_is_told_too(dtype: torch.dtype) -> None:
    in_file = weights(dtype)
    widened = {name: tensor.float() for name, tensor in in_file.items()}
    verify_weights(Patcher(widened), binding(in_file), FAMILY, SettingsCheck())
    # One value that the file cannot have had.
    widened["head.head.weight"][0, 0] += 1e-6
    with pytest.raises(WeightsMismatch, match="has tensor root"):
        verify_weights(Patcher(widened), binding(in_file), FAMILY, SettingsCheck())


def test_weights_are_told_without_lora() -> None:
    merged = {**weights(), "head.head.weight": torch.zeros(3, 2)}
    patcher = Patcher(merged)
    patcher.backup["diffusion_model.head.head.weight"] = SimpleNamespace(weight=weights()["head.head.weight"])
    verify_weights(patcher, binding(weights()), FAMILY, SettingsCheck())
    with pytest.raises(WeightsMismatch, match="has tensor root"):
        verify_weights(Patcher(merged), binding(weights()), FAMILY, SettingsCheck())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_a_cast_file_cannot_be_checked_and_is_refused_unless_allowed(dtype: torch.dtype) -> None:
    cast = {**weights(dtype), "head.head.scale_weight": torch.ones(())}
    with pytest.raises(WeightsMismatch, match=r"tensor root .* the policy is for") as caught:
        verify_weights(Patcher(cast), binding(weights()), FAMILY, SettingsCheck())
    assert "turn on allow_uncalibrated" in caught.value.remedy
    with pytest.warns(UncalibratedWarning, match="weights: transformer in this MODEL"):
        verify_weights(Patcher(cast), binding(weights()), FAMILY, SettingsCheck(allow=True))


class Quantised(Tensor):
    """As libraries have quantised weights: of the shape that they stand for, with values of their own."""


@pytest.mark.parametrize(
    "made", [lambda tensor: tensor.to("meta"), lambda tensor: tensor.as_subclass(Quantised)]
)
def test_values_that_are_no_plain_numbers_in_memory_cannot_be_checked(made: Any) -> None:
    elsewhere = {name: made(tensor) for name, tensor in weights().items()}
    with pytest.raises(WeightsMismatch, match="is quantised, and cannot be checked"):
        verify_weights(Patcher(elsewhere), binding(weights()), FAMILY, SettingsCheck())


def test_an_error_while_weights_are_hashed_is_not_taken_for_quantised_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(tensor: Tensor) -> bytes:
        raise torch.OutOfMemoryError("no room")

    bound = binding(weights())
    monkeypatch.setattr("budc.runtimes.comfyui.weights.tensor_record", full)
    with pytest.raises(torch.OutOfMemoryError):
        verify_weights(Patcher(weights()), bound, FAMILY, SettingsCheck())


def test_other_shapes_and_settings_are_always_refused() -> None:
    wide = {name: torch.zeros(4, 2) for name in weights()}
    with pytest.raises(WeightsMismatch, match="other tensors"):
        verify_weights(Patcher(wide), binding(weights()), FAMILY, SettingsCheck(allow=True))
    bound = binding(weights(), config={"eps": 1e-5})
    with pytest.raises(WeightsMismatch, match="eps 1e-06, the policy is for 1e-05"):
        verify_weights(Patcher(weights()), bound, FAMILY, SettingsCheck(allow=True))


def test_a_class_that_the_engine_has_no_family_for_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match="HunyuanVideoTransformer3DModel, which is not supported"):
        engine_family("HunyuanVideoTransformer3DModel", nn.Module())


@pytest.mark.parametrize(
    ("rules", "name", "rows", "expected"),
    [
        (FLUX, "double_blocks.3.txt_attn.qkv.bias", 6, [
            ("transformer_blocks.3.attn.add_q_proj.bias", [0, 1]),
            ("transformer_blocks.3.attn.add_k_proj.bias", [2, 3]),
            ("transformer_blocks.3.attn.add_v_proj.bias", [4, 5]),
        ]),
        (FLUX, "single_blocks.12.linear1.weight", 10, [
            ("single_transformer_blocks.12.attn.to_q.weight", [0, 1]),
            ("single_transformer_blocks.12.attn.to_k.weight", [2, 3]),
            ("single_transformer_blocks.12.attn.to_v.weight", [4, 5]),
            ("single_transformer_blocks.12.proj_mlp.weight", [6, 7, 8, 9]),
        ]),
        (FLUX, "final_layer.adaLN_modulation.1.bias", 4, [("norm_out.linear.bias", [2, 3, 0, 1])]),
        (WAN, "blocks.7.modulation", 1, [("blocks.7.scale_shift_table", [0])]),
        (WAN, "blocks.7.cross_attn.o.weight", 2, [("blocks.7.attn2.to_out.0.weight", [0, 1])]),
        (WAN, "patch_embedding.weight", 2, [("patch_embedding.weight", [0, 1])]),
        (Z_IMAGE, "layers.0.attention.qkv.weight", 3, [
            ("layers.0.attention.to_q.weight", [0]),
            ("layers.0.attention.to_k.weight", [1]),
            ("layers.0.attention.to_v.weight", [2]),
        ]),
    ],
)  # fmt: skip
def test_names_and_rows(rules: Any, name: str, rows: int, expected: Any) -> None:
    parts = diffusers_tensors(rules, name, torch.arange(rows), channels=2)
    assert [(other, part.tolist()) for other, part in parts] == expected
