"""Networks that other libraries have quantised: called so, and run where the user allows it, marked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.admission.settings import UncalibratedWarning  # noqa: E402
from budc.schema.errors import WeightsMismatch  # noqa: E402
from budc.schema.policy import PolicyDocument  # noqa: E402

LAYERS = ("attn1.to_q", "attn1.to_k", "attn2.to_out.0", "ffn.net.2")


def from_gguf(transformer: Any, folder: Path) -> Any:
    """Write some of the weights in 8 bits as a GGUF file, and load that with diffusers."""
    gguf = pytest.importorskip("gguf")
    from diffusers import GGUFQuantizationConfig

    writer = gguf.GGUFWriter(folder / "wan.gguf", "wan")
    for name, value in transformer.state_dict().items():
        if name.endswith(tuple(f"{layer}.weight" for layer in LAYERS)):
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quants.quantize(value.numpy(), kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, value.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    transformer.save_config(folder)
    return type(transformer).from_single_file(
        str(folder / "wan.gguf"),
        config=str(folder),
        quantization_config=GGUFQuantizationConfig(compute_dtype=torch.float32),
        local_files_only=True,
    )


def in_bitsandbytes(bits: int) -> Callable[[Any, Path], Any]:
    """Put bitsandbytes' layers, which compute on a CPU too, in place of some.

    The library is no part of the extra `dev`: where it is installed, every process that imports diffusers or peft
    imports it too, which takes seconds.
    """

    def quantise(transformer: Any, _folder: Path) -> Any:
        layers = pytest.importorskip("bitsandbytes").nn
        for name, layer in list(transformer.named_modules()):
            if name.endswith(LAYERS):
                new = (
                    layers.Linear8bitLt(layer.in_features, layer.out_features, has_fp16_weights=False)
                    if bits == 8
                    else layers.Linear4bit(layer.in_features, layer.out_features, compute_dtype=torch.float32)
                )
                new.load_state_dict(layer.state_dict())
                # Weights are quantised where they are moved to a device.
                transformer.set_submodule(name, new.to("cpu"))
        return transformer

    return quantise


QUANTISED: dict[str, Callable[[Any, Path], Any]] = {
    "GGUFParameter": from_gguf,
    "Int8Params": in_bitsandbytes(8),
    "Params4bit": in_bitsandbytes(4),
}


@pytest.mark.filterwarnings("ignore::budc.runtimes.admission.settings.UncalibratedWarning")
@pytest.mark.parametrize("kind", QUANTISED)
def test_a_foreign_model_is_called_quantised_and_runs_marked_where_that_is_allowed(
    wan: Any,
    run: Callable[..., Any],
    compiled_for: Callable[..., PolicyDocument],
    apply_quietly: Callable[..., Any],
    tmp_path: Path,
    kind: str,
) -> None:
    document, plain = compiled_for(wan), run(wan)
    wan.transformer = QUANTISED[kind](wan.transformer, tmp_path)
    with pytest.raises(WeightsMismatch, match=rf"transformer is quantised \(.* is a {kind} of u?int8\)"):
        apply_quietly(wan, document)
    with pytest.warns(UncalibratedWarning):
        applied = apply_quietly(wan, document, allow_uncalibrated=True)
    latents = run(wan)
    assert torch.equal(run(wan), latents)
    assert not torch.equal(latents, plain)
    assert "is quantised" in applied.uncalibrated[0]
