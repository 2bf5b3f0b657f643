"""Identity: only the model that the policy is bound to passes, from its folder or from memory."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning  # noqa: E402
from budc.runtimes.diffusers.weights import memory_architecture, memory_root, verify_model  # noqa: E402
from budc.schema.digests import architecture_digest, file_digests, tensor_root  # noqa: E402
from budc.schema.errors import (  # noqa: E402
    UnsafeWeights,
    UnsupportedModel,
    WeightsMismatch,
    WeightsMissing,
)
from budc.schema.policy import PolicyDocument  # noqa: E402

FILES = ["transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"]
CompiledFor = Callable[..., PolicyDocument]


@pytest.fixture
def folder(wan: Any, tmp_path: Path) -> Path:
    wan.transformer.save_pretrained(tmp_path / "transformer")
    return tmp_path


@pytest.fixture
def document(wan: Any, folder: Path, compiled_for: CompiledFor) -> PolicyDocument:
    return compiled_for(wan, files=file_digests(folder, FILES))


@pytest.fixture
def loaded(wan: Any, folder: Path) -> Any:
    return type(wan.transformer).from_pretrained(folder / "transformer")


def verify(transformer: Any, document: PolicyDocument, allow: bool = False, **options: Any) -> SettingsCheck:
    calibration = SettingsCheck(allow)
    verify_model(transformer, document.model.denoisers[0], document, calibration, **options)
    return calibration


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_digests_in_memory_are_those_of_the_files(wan: Any, tmp_path: Path, dtype: Any) -> None:
    model = wan.transformer.to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) > 1
    assert memory_root(model) == tensor_root(files)
    assert memory_architecture(model) == architecture_digest(files)


def test_from_its_folder(loaded: Any, document: PolicyDocument, folder: Path) -> None:
    verify(loaded, document)
    verify(loaded, document, weights_dir=folder)
    verify(loaded.to(torch.bfloat16), document)


def test_from_memory(wan: Any, document: PolicyDocument, loaded: Any, folder: Path) -> None:
    verify(wan.transformer, document)
    with pytest.raises(WeightsMismatch, match="the weights in memory have tensor root"):
        verify(wan.transformer.to(torch.bfloat16), document)
    verify(wan.transformer, document, weights_dir=folder)


def test_a_folder_that_has_moved_is_no_excuse(loaded: Any, document: PolicyDocument, folder: Path) -> None:
    (folder / "transformer").rename(folder / "elsewhere")
    verify(loaded, document)
    with pytest.raises(WeightsMissing):
        verify(loaded, document, weights_dir=folder)
    torch.nn.init.zeros_(loaded.proj_out.bias)
    with pytest.raises(WeightsMismatch, match="tensor root"):
        verify(loaded, document)


def test_another_file_in_the_folder(loaded: Any, document: PolicyDocument, folder: Path) -> None:
    path = folder / FILES[1]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsMismatch, match=r"diffusion_pytorch_model\.safetensors in .* has sha256"):
        verify(loaded, document)


def test_a_second_weight_file_is_never_let_through(
    loaded: Any, document: PolicyDocument, folder: Path
) -> None:
    (folder / "transformer" / "diffusion_pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeWeights):
        verify(loaded, document, allow=True)


def change_one_value(model: Any) -> None:
    with torch.no_grad():
        model.proj_out.weight[0, 0] += 1e-3


def scale_attention(model: Any) -> None:
    with torch.no_grad():
        model.blocks[1].attn1.to_q.weight.mul_(1.001)


def drop_precision(model: Any) -> None:
    model.to(torch.float16).to(torch.float32)


def change_the_last_value(model: Any) -> None:
    with torch.no_grad():
        model.proj_out.weight[-1, -1] += 1e-3


@pytest.mark.parametrize("change", [change_one_value, change_the_last_value, scale_attention, drop_precision])
def test_weights_changed_since_loading(loaded: Any, document: PolicyDocument, change: Any) -> None:
    change(loaded)
    with pytest.raises(WeightsMismatch, match="in memory is not what the model folder holds"):
        verify(loaded, document)


def test_fused_adapter(loaded: Any, document: PolicyDocument) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    loaded.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False))
    verify(loaded, document)
    loaded.fuse_lora()
    with pytest.raises(WeightsMismatch, match=r"attn\d\.to_q\.weight in memory"):
        verify(loaded, document)


@pytest.mark.parametrize("extra", ["more", "fewer"])
def test_other_layers_than_the_folder(loaded: Any, document: PolicyDocument, extra: str) -> None:
    if extra == "more":
        loaded.blocks.append(copy.deepcopy(loaded.blocks[0]))
    else:
        del loaded.blocks[1]
    with pytest.raises(WeightsMismatch, match=r"blocks\.[12]\."):
        verify(loaded, document, allow=True)


def test_same_architecture_where_the_user_allows_it(wan: Any, document: PolicyDocument) -> None:
    scale_attention(wan.transformer)
    with pytest.warns(
        UncalibratedWarning, match="uncalibrated run: weights: transformer: the weights in memory"
    ):
        calibration = verify(wan.transformer, document, allow=True)
    assert list(calibration.differences) == ["weights"]


class Packed(torch.nn.Parameter):
    """A weight in a class of its own, as quantisation libraries have."""


def pack(model: Any) -> None:
    weight = model.proj_out.weight
    model.proj_out.weight = Packed(weight.detach().to(torch.int8), requires_grad=False)


def in_integers(model: Any) -> None:
    weight = model.proj_out.weight.detach().to(torch.uint8)
    model.proj_out.weight = torch.nn.Parameter(weight, requires_grad=False)


def quantise_dynamically(model: Any) -> None:
    torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, inplace=True)


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization:DeprecationWarning", "ignore:.*quantized tensor:UserWarning"
)
@pytest.mark.parametrize("quantise", [pack, in_integers, quantise_dynamically])
def test_a_quantised_model_is_called_so_and_runs_only_where_the_user_allows_it(
    loaded: Any, document: PolicyDocument, folder: Path, quantise: Any
) -> None:
    quantise(loaded)
    for options in ({}, {"weights_dir": folder}):
        with pytest.raises(WeightsMismatch, match=r"transformer is quantised \(.* is a "):
            verify(loaded, document, **options)
        with pytest.warns(UncalibratedWarning, match="weights: transformer is quantised"):
            assert list(verify(loaded, document, allow=True, **options).differences) == ["weights"]


def offloaded_to_disk(transformer: Any, folder: Path) -> Any:
    cpu = torch.device("cpu")
    transformer.enable_group_offload(
        onload_device=cpu, offload_device=cpu, offload_type="leaf_level", offload_to_disk_path=str(folder)
    )
    return transformer


def test_offloaded_to_disk_it_is_the_same_model(
    wan: Any, loaded: Any, document: PolicyDocument, tmp_path: Path
) -> None:
    verify(offloaded_to_disk(loaded, tmp_path / "loaded"), document)
    verify(offloaded_to_disk(wan.transformer, tmp_path / "built"), document)


def test_another_model_offloaded_to_disk_is_refused(
    wan: Any, loaded: Any, document: PolicyDocument, tmp_path: Path
) -> None:
    for number, model in enumerate((wan.transformer, loaded)):
        scale_attention(model)
        with pytest.raises(WeightsMismatch, match=r"tensor root|is not what the model folder holds"):
            verify(offloaded_to_disk(model, tmp_path / str(number)), document)


def test_another_class(flux: Any, document: PolicyDocument) -> None:
    with pytest.raises(
        UnsupportedModel, match="for WanTransformer3DModel, the pipeline has FluxTransformer2D"
    ):
        verify(flux.transformer, document, allow=True)
