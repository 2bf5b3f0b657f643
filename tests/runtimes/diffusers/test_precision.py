"""Precision: a policy is bound to what computes, wherever that is set."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.admission.settings import UncalibratedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy, apply  # noqa: E402
from budc.schema.digests import file_digests  # noqa: E402
from budc.schema.errors import CalibrationMismatch  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]
ApplyQuietly = Callable[..., AppliedPolicy]

CALIBRATED = "dtype: the policy was calibrated for float32, this run has "


@pytest.fixture
def exact_products() -> Iterator[None]:
    """Put the precision of matrix products back."""
    yield
    torch.set_float32_matmul_precision("highest")


def cast_in_layers(pipe: Any) -> None:
    pipe.transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)


def test_casting_in_layers_is_refused_naming_both_dtypes(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    cast_in_layers(wan)
    assert wan.transformer.dtype == torch.float32
    with pytest.raises(CalibrationMismatch, match=rf"{CALIBRATED}.* in float8_e4m3fn"):
        run(wan)


@pytest.mark.filterwarnings("ignore:tiny is not signed")
def test_casting_in_layers_before_apply_is_refused_too(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly, tmp_path: Path
) -> None:
    wan.transformer.save_pretrained(tmp_path / "transformer")
    files = ["transformer/config.json", "transformer/diffusion_pytorch_model.safetensors"]
    document = compiled_for(wan, files=file_digests(tmp_path, files))
    cast_in_layers(wan)
    with pytest.raises(CalibrationMismatch, match=rf"{CALIBRATED}.* in float8_e4m3fn"):
        apply_quietly(wan, document, weights_dir=tmp_path)
    with pytest.warns(UncalibratedWarning, match=rf"{CALIBRATED}.* in float8_e4m3fn"):
        applied_policy = apply(
            wan, document, weights_dir=tmp_path, allow_unsigned=True, allow_uncalibrated=True
        )
    with pytest.warns(UncalibratedWarning, match="float8_e4m3fn"):
        run(wan)
    assert any("float8_e4m3fn" in difference for difference in applied_policy.uncalibrated)


def test_autocast_is_refused_naming_both_dtypes(
    pipe: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(pipe, compiled_for(pipe))
    expected = run(pipe)
    with (
        torch.autocast("cpu", torch.bfloat16),
        pytest.raises(CalibrationMismatch, match=f"{CALIBRATED}autocast to bfloat16"),
    ):
        run(pipe)
    assert torch.equal(run(pipe), expected)


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize(("precision", "name"), [("high", "tf32"), ("medium", "bf16")])
def test_shortened_products_are_refused_where_float32_was_calibrated(
    flux: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly, precision: str, name: str
) -> None:
    apply_quietly(flux, compiled_for(flux))
    torch.set_float32_matmul_precision(precision)
    with pytest.raises(CalibrationMismatch, match=f"{CALIBRATED}matrix products in {name}") as refusal:
        run(flux)
    assert 'torch.set_float32_matmul_precision("highest")' in refusal.value.remedy
    torch.set_float32_matmul_precision("highest")
    run(flux)


def test_a_text_encoder_in_another_dtype_is_refused_by_its_name(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    apply_quietly(wan, compiled_for(wan))
    wan.text_encoder.to(torch.bfloat16)
    with pytest.raises(
        CalibrationMismatch, match=r"dtype of text_encoder: .* for float32, this run has bfloat16"
    ):
        run(wan)


def test_weights_that_models_keep_in_float32_are_no_other_precision(
    wan: Any, run: Run, compiled_for: CompiledFor, apply_quietly: ApplyQuietly
) -> None:
    import msgspec

    wan.to(torch.bfloat16)
    wan.transformer.condition_embedder.time_embedder.to(torch.float32)
    document = compiled_for(wan)
    shape = msgspec.structs.replace(document.shape, dtype="bfloat16")
    apply_quietly(wan, msgspec.structs.replace(document, shape=shape))
    run(wan)
