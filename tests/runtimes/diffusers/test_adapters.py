"""Adapters that a policy was made with: the same ones at the same scales run, all others are refused by name."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from lora import write_lora
from msgspec.structs import replace

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from budc.policies.adapter_files import adapter_files  # noqa: E402
from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning  # noqa: E402
from budc.runtimes.diffusers.adapters import AdapterCheck  # noqa: E402
from budc.runtimes.sampling import adapters as module  # noqa: E402
from budc.runtimes.sampling.adapters import active_adapters, load_adapters  # noqa: E402
from budc.schema.errors import CalibrationMismatch, UnsupportedModel, WeightsMismatch  # noqa: E402
from budc.schema.policy import AdapterRule, PolicyDocument, ScaledAdapter  # noqa: E402

Run = Callable[..., Any]
CompiledFor = Callable[..., PolicyDocument]


@pytest.fixture
def style(pipe: Any, tmp_path: Path) -> Path:
    return write_lora(tmp_path / "style.safetensors", pipe.transformer)


@pytest.fixture
def light(pipe: Any, tmp_path: Path) -> Path:
    return write_lora(tmp_path / "light.safetensors", pipe.transformer, seed=1, modules="to_v")


def load(pipe: Any, *texts: str) -> None:
    load_adapters(pipe, adapter_files(texts, ["transformer"]), ["transformer"])


def listing(pipe: Any, document: PolicyDocument, *texts: str) -> PolicyDocument:
    """Return the document of a policy that was made with these adapters, none of which stays loaded."""
    files = adapter_files(texts, ["transformer"])
    load_adapters(pipe, files, ["transformer"])
    active = active_adapters(pipe.transformer)
    scaled = [
        ScaledAdapter(
            name=file.name,
            file=sha256(file.path.read_bytes()).hexdigest(),
            loaded=active[file.name].root(),
            scale=file.scale,
        )
        for file in files
    ]
    pipe.unload_lora_weights()
    rule = AdapterRule(rule="listed", scaled=scaled)
    return replace(document, model=replace(document.model, adapters=rule))


def test_the_adapters_of_the_policy_run_at_their_scales_under_any_name(
    pipe: Any, style: Path, light: Path, run: Run, compiled_for: CompiledFor, applied_quietly: Any
) -> None:
    document = listing(pipe, compiled_for(pipe), f"{style}:0.5", f"{light}:2")
    pipe.load_lora_weights(str(light.parent), weight_name=light.name, adapter_name="bright")
    with pytest.warns(UserWarning, match="multiple adapters"):
        pipe.load_lora_weights(str(style.parent), weight_name=style.name, adapter_name="mine")
    pipe.set_adapters(["mine", "bright"], [0.5, 2.0])
    with applied_quietly(pipe, document) as applied:
        first, again = run(pipe), run(pipe)
        assert applied.uncalibrated == ()
    assert torch.equal(first, again)
    pipe.unload_lora_weights()
    with applied_quietly(pipe, compiled_for(pipe)):
        assert not torch.equal(run(pipe), first)


def test_a_missing_an_additional_and_another_adapter_are_refused(
    wan: Any, tmp_path: Path, compiled_for: CompiledFor, apply_quietly: Any
) -> None:
    style = write_lora(tmp_path / "style.safetensors", wan.transformer)
    light = write_lora(tmp_path / "light.safetensors", wan.transformer, seed=1, modules="to_v")
    other = write_lora(tmp_path / "other" / "style.safetensors", wan.transformer, seed=2)
    document = listing(wan, compiled_for(wan), str(style))
    missing = "adapters: the policy was calibrated with style .* at scale 1, which is none of those loaded"
    with pytest.raises(CalibrationMismatch, match=rf"{missing} \(none\)"):
        apply_quietly(wan, document)
    load(wan, str(other))
    with pytest.raises(CalibrationMismatch, match=rf"{missing} \(style\)"):
        apply_quietly(wan, document)
    wan.unload_lora_weights()
    load(wan, str(style), str(light))
    with pytest.raises(CalibrationMismatch, match="adapters: this run has light, with which"):
        apply_quietly(wan, document)
    with pytest.raises(CalibrationMismatch, match="calibrated for none, this run has light, style"):
        apply_quietly(wan, compiled_for(wan))


@pytest.mark.parametrize("weights", [0.8, {"blocks.0": 0.5}], ids=["all", "some layers"])
def test_another_scale_is_refused(
    wan: Any, tmp_path: Path, compiled_for: CompiledFor, apply_quietly: Any, weights: Any
) -> None:
    style = write_lora(tmp_path / "style.safetensors", wan.transformer)
    document = listing(wan, compiled_for(wan), f"{style}:0.5")
    load(wan, f"{style}:0.5")
    wan.transformer.set_adapters(["style"], [weights])
    with pytest.raises(
        CalibrationMismatch, match=r"scale of style: the policy was calibrated for 0.5, this run has"
    ):
        apply_quietly(wan, document)


def test_what_changes_after_apply_is_refused_at_the_next_run(
    wan: Any, tmp_path: Path, run: Run, compiled_for: CompiledFor, applied_quietly: Any
) -> None:
    style = write_lora(tmp_path / "style.safetensors", wan.transformer)
    document = listing(wan, compiled_for(wan), f"{style}:0.5")
    load(wan, f"{style}:0.5")
    with applied_quietly(wan, document):
        expected = run(wan)
        wan.set_adapters("style", 0.6)
        with pytest.raises(CalibrationMismatch, match="scale of style"):
            run(wan)
        wan.set_adapters("style", 0.5)
        with pytest.raises(
            CalibrationMismatch, match=r"attention_kwargs\['scale'\]: .* 1.0, this run has 0.5"
        ):
            run(wan, attention_kwargs={"scale": 0.5})
        wan.disable_lora()
        with pytest.raises(CalibrationMismatch, match="which is none of those loaded"):
            run(wan)
        wan.enable_lora()
        assert torch.equal(run(wan), expected)
        with torch.no_grad():
            for name, parameter in wan.transformer.named_parameters():
                if "lora_B" in name:
                    parameter.mul_(1.5)
        with pytest.raises(CalibrationMismatch, match="which is none of those loaded"):
            run(wan)
        wan.unload_lora_weights()
        load(wan, f"{style}:0.5")
        assert torch.equal(run(wan), expected)


def test_a_fused_adapter_is_not_the_one_that_was_loaded(
    wan: Any, tmp_path: Path, compiled_for: CompiledFor, apply_quietly: Any
) -> None:
    style = write_lora(tmp_path / "style.safetensors", wan.transformer)
    document = listing(wan, compiled_for(wan), str(style))
    load(wan, str(style))
    wan.fuse_lora()
    with pytest.raises(WeightsMismatch, match="the weights in memory"):
        apply_quietly(wan, document)
    with pytest.raises(CalibrationMismatch, match="style is fused into the weights"):
        AdapterCheck(document, "transformer", wan.transformer)(SettingsCheck())


def test_other_adapters_may_be_allowed_and_are_noted_in_every_run(
    wan: Any, tmp_path: Path, run: Run, compiled_for: CompiledFor, apply_quietly: Any
) -> None:
    style = write_lora(tmp_path / "style.safetensors", wan.transformer)
    document = listing(wan, compiled_for(wan), str(style))
    with pytest.warns(UncalibratedWarning, match="adapters: the policy was calibrated with style"):
        applied = apply_quietly(wan, document, allow_uncalibrated=True)
    for _ in range(2):
        with pytest.warns(UncalibratedWarning, match="adapters: the policy was calibrated with style"):
            run(wan)
        assert "with style" in applied.uncalibrated[0]


def test_what_an_adapter_adds_is_hashed_once(
    wan: Any, tmp_path: Path, compiled_for: CompiledFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    style = write_lora(tmp_path / "style.safetensors", wan.transformer)
    document = listing(wan, compiled_for(wan), str(style))
    load(wan, str(style))
    hashed = []
    record = module.tensor_record
    monkeypatch.setattr(module, "tensor_record", lambda tensor: hashed.append(1) or record(tensor))
    check = AdapterCheck(document, "transformer", wan.transformer)
    check(SettingsCheck())
    first = len(hashed)
    assert first
    check(SettingsCheck())
    assert len(hashed) == first


def test_the_root_is_that_of_the_specification(wan: Any, tmp_path: Path) -> None:
    """Tensors by path without the adapter's name, and the factor of each module as an F64."""
    from safetensors.torch import load_file, save_file

    from budc.schema.digests import tensor_root

    style = write_lora(tmp_path / "style.safetensors", wan.transformer, rank=4)
    load(wan, f"{style}:0.3")
    plain = {key.removeprefix("transformer."): value for key, value in load_file(style).items()}
    modules = {key.rpartition(".lora_")[0] for key in plain}
    # A file without alphas has those of its ranks.
    factors = {f"{name}.scaling": torch.tensor(1.0, dtype=torch.float64) for name in modules}
    save_file(plain | factors, tmp_path / "expected.safetensors")
    assert active_adapters(wan.transformer)["style"].root() == tensor_root(
        [tmp_path / "expected.safetensors"]
    )


def test_a_file_for_another_model_is_refused(wan: Any, flux: Any, tmp_path: Path) -> None:
    foreign = write_lora(tmp_path / "foreign.safetensors", flux.transformer)
    with pytest.raises(
        UnsupportedModel, match=r"foreign\.safetensors (cannot be loaded into|holds nothing for)"
    ):
        load(wan, str(foreign))
