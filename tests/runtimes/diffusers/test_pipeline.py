"""load_pipeline: a pipeline by its model's name, as the profile deploys it, from local safetensors alone."""

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import budc  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.schema.errors import UsageError, WeightsMissing  # noqa: E402


def test_an_embedded_model_by_its_name() -> None:
    pipe = budc.load_pipeline("wan2.1-nano", device="cpu")
    assert type(pipe) is diffusers.WanPipeline
    assert type(pipe.scheduler).__name__ == load_profile("wan2.1-nano").scheduler
    assert (pipe.transformer.dtype, pipe.vae.dtype, pipe.device.type) == (torch.float32, torch.float32, "cpu")


def test_a_folder_is_loaded_as_the_profile_deploys_it(wan_folder: Path) -> None:
    profile = load_profile("wan2.1")
    pipe = budc.load_pipeline("wan2.1", weights=str(wan_folder))
    assert pipe.scheduler.config.flow_shift == profile.scheduler_config["flow_shift"] == 5.0
    assert pipe.transformer.dtype == pipe.text_encoder.dtype == torch.bfloat16
    assert pipe.vae.dtype == torch.float32
    again = budc.load_pipeline(profile, weights=wan_folder, dtype=torch.float16)
    assert (again.transformer.dtype, again.vae.dtype) == (torch.float16, torch.float32)


def test_a_pipeline_that_does_not_cast_latents_has_one_dtype(flux_folder: Path) -> None:
    pipe = budc.load_pipeline("flux.1-dev", weights=flux_folder)
    assert pipe.transformer.dtype == pipe.vae.dtype == torch.bfloat16


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"^model: no profile named 'wan2\.1-nono', and no") as refused:
        budc.load_pipeline("wan2.1-nono")
    assert refused.value.remedy == "use wan2.1-nano"


def test_another_dtype_is_refused() -> None:
    with pytest.raises(UsageError, match="dtype: float64") as refused:
        budc.load_pipeline("wan2.1-nano", dtype="float64")
    assert "bfloat16" in refused.value.remedy


@pytest.mark.parametrize("name", ["wan2.1", "hyper-flux"])
def test_weights_that_are_not_there_are_not_downloaded(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsMissing, match=f"^{name}: no ") as refused:
        budc.load_pipeline(name)
    assert refused.value.remedy.startswith("pass weights=")
    assert "--" not in refused.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=r"model_index\.json is missing") as refused:
        budc.load_pipeline("wan2.1-nano", weights=tmp_path)
    assert refused.value.remedy.startswith("pass weights=")


def test_pickled_weights_are_not_loaded(wan_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(wan_folder, tmp_path / "wan")
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    transformer = diffusers.WanTransformer3DModel.from_pretrained(folder / "transformer")
    torch.save(transformer.state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(WeightsMissing, match="cannot be loaded"):
        budc.load_pipeline("wan2.1-nano", weights=folder)
