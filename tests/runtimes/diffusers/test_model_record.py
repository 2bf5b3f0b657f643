"""A model under a policy: whatever changes it after `apply` is noticed at the next run; offloading is not a change."""

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.admission.settings import UncalibratedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy  # noqa: E402
from budc.runtimes.diffusers.model_record import ModelRecord  # noqa: E402
from budc.runtimes.diffusers.own_layers import OwnLayers  # noqa: E402
from budc.schema.errors import CalibrationMismatch  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]
ApplyQuietly = Callable[..., AppliedPolicy]


def add_adapter(transformer: Any) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    transformer.add_adapter(config, adapter_name="a")


def fuse_and_unload(transformer: Any) -> None:
    add_adapter(transformer)
    transformer.fuse_lora()
    transformer.unload_lora()


def replace_a_processor(transformer: Any) -> None:
    attention = transformer.blocks[1].attn1
    attention.set_processor(copy.deepcopy(attention.processor))


def change_a_weight(transformer: Any) -> None:
    with torch.no_grad():
        transformer.blocks[0].ffn.net[0].proj.weight.mul_(1.001)


def change_the_data_of_a_weight(transformer: Any) -> None:
    weight = transformer.blocks[1].attn2.to_k.weight
    weight.data = weight.data * 1.001


def drop_precision(transformer: Any) -> None:
    transformer.to(torch.bfloat16).to(torch.float32)


def quantise(transformer: Any) -> None:
    torch.ao.quantization.quantize_dynamic(transformer.blocks, {torch.nn.Linear}, inplace=True)


def replace_a_layer(transformer: Any) -> None:
    transformer.proj_out = copy.deepcopy(transformer.proj_out)


def replace_a_parameter(transformer: Any) -> None:
    shape = transformer.proj_out.bias.shape
    transformer.proj_out.bias = torch.nn.Parameter(torch.ones(shape))


def fuse_projections(transformer: Any) -> None:
    transformer.fuse_qkv_projections()


CHANGES = [
    (fuse_and_unload, r"values of blocks\.0\.attn1\.to_q\.weight were changed"),
    (replace_a_processor, r"the attention processor of blocks\.1\.attn1 was replaced by a WanAttnProcessor"),
    (change_a_weight, r"values of blocks\.0\.ffn\.net\.0\.proj\.weight were changed"),
    (change_the_data_of_a_weight, r"values of blocks\.1\.attn2\.to_k\.weight were changed"),
    (drop_precision, "values of .* were changed"),
    (quantise, r"module blocks\.0\.attn1\.to_k was replaced by a Linear"),
    (replace_a_layer, "module proj_out was replaced by a Linear"),
    (replace_a_parameter, r"values of proj_out\.bias were changed"),
    (fuse_projections, r"module blocks\.0\.attn1\.to_qkv was added"),
]


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization:DeprecationWarning", "ignore:.*quantized tensor:UserWarning"
)
@pytest.mark.parametrize(("change", "said"), CHANGES, ids=lambda value: getattr(value, "__name__", ""))
def test_a_change_after_apply_is_refused_at_the_next_run_and_named(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly, change: Any, said: str
) -> None:
    apply_quietly(wan, compiled_for(wan))
    run(wan)
    change(wan.transformer)
    with pytest.raises(CalibrationMismatch, match=f"model: pipe.transformer has changed since .*: {said}"):
        run(wan)


def test_a_change_runs_and_is_said_where_the_user_allows_it(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    applied_policy = apply_quietly(wan, compiled_for(wan), allow_uncalibrated=True)
    change_a_weight(wan.transformer)
    with pytest.warns(UncalibratedWarning, match="model: pipe.transformer has changed"):
        run(wan)
    assert len(applied_policy.uncalibrated) == 1


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization:DeprecationWarning", "ignore:.*quantized tensor:UserWarning"
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_quantised_model_runs_and_is_said_where_the_user_allows_it(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly, when: str
) -> None:
    document = compiled_for(wan)
    plain = run(wan)
    if when == "before":
        quantise(wan.transformer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncalibratedWarning)
        applied_policy = apply_quietly(wan, document, allow_uncalibrated=True)
        if when == "after":
            quantise(wan.transformer)
        result = run(wan)
    assert any("quantised" in said or "replaced by" in said for said in applied_policy.uncalibrated)
    assert result.isfinite().all()
    assert not torch.equal(result, plain)


def test_adapters_come_and_go_where_the_policy_allows_them(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan, adapters="any"))
    plain = run(wan)
    add_adapter(wan.transformer)
    adapted = run(wan)
    wan.transformer.fuse_lora()
    torch.testing.assert_close(run(wan), adapted, rtol=1e-3, atol=1e-3)
    wan.transformer.unload_lora()
    with pytest.raises(CalibrationMismatch, match=r"values of .* were changed"):
        run(wan)
    assert not torch.allclose(adapted, plain)


def test_an_adapter_loaded_and_unloaded_is_no_change(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    expected = run(wan)
    add_adapter(wan.transformer)
    with pytest.raises(CalibrationMismatch, match="adapters: "):
        run(wan)
    wan.transformer.unload_lora()
    assert torch.equal(run(wan), expected)


@pytest.mark.parametrize("when", ["before", "after"])
def test_group_offloading_to_disk_is_no_change(
    pipe: Any,
    run: Run,
    compiled_for: CompiledFor,
    apply_quietly: ApplyQuietly,
    tmp_path: Path,
    when: str,
) -> None:
    document = compiled_for(pipe)
    applied_policy = apply_quietly(pipe, document)
    expected = run(pipe)
    applied_policy.remove()

    def offload() -> None:
        cpu = torch.device("cpu")
        pipe.transformer.enable_group_offload(
            onload_device=cpu,
            offload_device=cpu,
            offload_type="leaf_level",
            offload_to_disk_path=str(tmp_path / "offloaded"),
        )

    if when == "before":
        offload()
    apply_quietly(pipe, document)
    if when == "after":
        offload()
    # Tensors in a mapped file are aligned otherwise, which can change the last bits of a product.
    for _ in range(2):
        torch.testing.assert_close(run(pipe), expected, rtol=1e-4, atol=1e-4)


def test_sequential_offloading_is_no_change(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    accelerate = pytest.importorskip("accelerate")
    apply_quietly(wan, compiled_for(wan))
    expected = run(wan)
    accelerate.cpu_offload(wan.transformer, execution_device=torch.device("cpu"))
    assert any(parameter.is_meta for parameter in wan.transformer.parameters())
    assert torch.equal(run(wan), expected)


def test_a_few_values_of_every_kind_of_tensor_are_recorded() -> None:
    module = torch.nn.Module()
    tensors = {
        "matrix": torch.randn(6, 4),
        "transposed": torch.randn(6, 4).t(),
        "half": torch.randn(9, dtype=torch.bfloat16),
        "one": torch.randn(1),
        "scalar": torch.tensor(2.0),
        "whole": torch.arange(5),
        "flags": torch.tensor([True, False]),
        "not a number": torch.full((3,), torch.nan),
    }
    for name, tensor in tensors.items():
        module.register_buffer(f"a {name}", tensor)
    module.register_buffer("empty", torch.zeros(0))
    record = ModelRecord(OwnLayers(module))
    assert record.change(OwnLayers(module), adapters_allowed=False) is None
    for name, tensor in module.named_buffers():
        if not tensor.numel():
            continue
        before = tensor.clone()
        tensor.logical_not_() if tensor.dtype == torch.bool else tensor.fill_(77)
        assert record.change(OwnLayers(module), adapters_allowed=False) == f"values of {name} were changed"
        tensor.copy_(before)
    assert record.change(OwnLayers(module), adapters_allowed=False) is None
