"""A policy for a quantised model runs on that model alone, quantised in the same way."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch")

from budc.policies.quantization import FP8_STORAGE, KINDS, TORCHAO  # noqa: E402
from budc.runtimes.admission.settings import UncalibratedWarning  # noqa: E402
from budc.runtimes.sampling.quantized import plain_values, quantization_of, values_root  # noqa: E402
from budc.schema.errors import CalibrationMismatch, UnsupportedModel, WeightsMismatch  # noqa: E402
from budc.schema.policy import PolicyDocument, Quantization  # noqa: E402

AppliedQuietly = Callable[..., Any]


def fp8(transformer: Any, storage: Any = torch.float8_e4m3fn) -> Any:
    transformer.enable_layerwise_casting(storage_dtype=storage, compute_dtype=torch.float32)
    return transformer


def torchao(kind: str) -> Callable[[Any], Any]:
    def quantize(transformer: Any) -> Any:
        library = pytest.importorskip("torchao.quantization")
        library.quantize_(transformer, getattr(library, TORCHAO[kind])())
        return transformer

    return quantize


QUANTIZE: dict[str, Callable[[Any], Any]] = {FP8_STORAGE: fp8} | {kind: torchao(kind) for kind in TORCHAO}


@pytest.fixture
def document(wan: Any, compiled_for: Callable[..., PolicyDocument]) -> PolicyDocument:
    return compiled_for(wan)


def quantized(document: PolicyDocument, transformer: Any, kind: str) -> PolicyDocument:
    """Return the policy as one for the quantised transformer."""
    (denoiser,) = document.model.denoisers
    binding = replace(denoiser, quantization=Quantization(kind=kind, values=values_root(transformer)))
    return replace(document, model=replace(document.model, denoisers=[binding]))


def test_every_kind_can_be_tried() -> None:
    assert QUANTIZE.keys() == KINDS.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_runs_on_the_model_quantised_as_it_was(
    wan: Any, run: Callable[..., Any], document: PolicyDocument, applied_quietly: AppliedQuietly, kind: str
) -> None:
    plain = run(wan)
    QUANTIZE[kind](wan.transformer)
    assert quantization_of(wan.transformer) == kind
    policy = quantized(document, wan.transformer, kind)
    with applied_quietly(wan, policy) as applied:
        first = run(wan)
        assert torch.equal(run(wan), first)
        assert applied.uncalibrated == ()
    assert not torch.equal(first, plain)


def test_another_quantisation_is_refused_naming_both(
    wan: Any, document: PolicyDocument, applied_quietly: AppliedQuietly
) -> None:
    published = copy.deepcopy(wan)
    fp8(wan.transformer)
    policy = quantized(document, wan.transformer, FP8_STORAGE)
    said = "transformer is not quantised, the policy is for quantisation by fp8-storage"
    with pytest.raises(WeightsMismatch, match=said) as refused, applied_quietly(published, policy):
        pass
    assert "quantize='fp8-storage'" in refused.value.remedy
    other = copy.deepcopy(published)
    fp8(other.transformer, torch.float8_e5m2)
    with (
        pytest.raises(WeightsMismatch, match=r"\(weights stored as float8_e5m2\), the policy is for"),
        applied_quietly(other, policy),
    ):
        pass


def test_another_quantisation_runs_uncalibrated_where_that_is_allowed(
    wan: Any, run: Callable[..., Any], document: PolicyDocument, apply_quietly: Callable[..., Any]
) -> None:
    policy = quantized(document, fp8(copy.deepcopy(wan).transformer), FP8_STORAGE)
    with pytest.warns(UncalibratedWarning, match="is not quantised"):
        applied = apply_quietly(wan, policy, allow_uncalibrated=True)
    run(wan)
    assert "is not quantised" in applied.uncalibrated[0]


def skip_a_layer(transformer: Any) -> None:
    transformer.enable_layerwise_casting(
        storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32, skip_modules_pattern=("blocks.0",)
    )


def fine_tune(transformer: Any) -> None:
    with torch.no_grad():
        transformer.blocks[1].attn1.to_q.weight.mul_(1.2)
    fp8(transformer)


@pytest.mark.parametrize("change", [skip_a_layer, fine_tune])
def test_other_layers_or_other_weights_are_refused_by_their_values(
    wan: Any, document: PolicyDocument, applied_quietly: AppliedQuietly, change: Callable[[Any], None]
) -> None:
    policy = quantized(document, fp8(copy.deepcopy(wan).transformer), FP8_STORAGE)
    change(wan.transformer)
    with (
        pytest.raises(WeightsMismatch, match="its values, quantised by fp8-storage, have tensor root"),
        applied_quietly(wan, policy),
    ):
        pass


def test_the_dtype_that_it_computes_in_is_compared(
    wan: Any, document: PolicyDocument, applied_quietly: AppliedQuietly
) -> None:
    transformer = wan.transformer
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.bfloat16)
    policy = quantized(document, transformer, FP8_STORAGE)
    with (
        pytest.raises(CalibrationMismatch, match=r"dtype: .*float32, this run has bfloat16"),
        applied_quietly(wan, policy),
    ):
        pass


def test_what_is_packed_in_an_object_cannot_be_compared(wan: Any) -> None:
    class Packed(torch.nn.Module):
        def get_extra_state(self) -> object:
            return ("weights",)

    wan.transformer.proj_out = Packed()
    assert quantization_of(wan.transformer) == "proj_out._extra_state is a tuple"
    with pytest.raises(
        UnsupportedModel, match=r"proj_out\._extra_state is a tuple, whose values cannot be read"
    ):
        plain_values(wan.transformer)
