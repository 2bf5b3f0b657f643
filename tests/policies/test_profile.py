import pytest

from budc.policies.conditioning_images import image_roles
from budc.policies.profile import find_weights, load_profile, profile_names, read_prompts
from budc.schema.errors import UsageError, WeightsMissing


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_whole(name):
    profile = load_profile(name)
    assert profile.name == name
    assert bool(profile.embedded) != bool(profile.repository)
    assert profile.try_instead in profile_names()
    prompts = profile.prompts
    if image_roles(profile.pipeline_class):
        # The package holds no images.
        assert (prompts.calibration, prompts.held_out) == ("", "")
        return
    calibration = read_prompts(prompts.calibration, prompts.calibration_size)
    held_out = read_prompts(prompts.held_out, prompts.held_out_size)
    assert not set(calibration) & set(held_out)
    assert len(calibration) == prompts.calibration_size


def test_an_unknown_model_suggests_the_nearest():
    with pytest.raises(UsageError, match="wan21-nano") as caught:
        load_profile("wan21-nano")
    assert "wan2.1-nano" in caught.value.remedy


def test_a_name_is_not_a_path():
    with pytest.raises(UsageError):
        load_profile("../policies/wan2.1")


def test_weights_are_looked_for_in_the_hub_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    profile = load_profile("wan2.1")
    repository = tmp_path / "models--Wan-AI--Wan2.1-T2V-1.3B-Diffusers"
    with pytest.raises(WeightsMissing, match=r"Wan-AI/Wan2\.1-T2V-1\.3B-Diffusers"):
        find_weights(profile, None)
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc\n")
    assert find_weights(profile, None) == snapshot


def test_a_given_folder_without_a_model_is_refused_even_with_download(tmp_path):
    with pytest.raises(WeightsMissing, match=r"model_index\.json"):
        find_weights(load_profile("wan2.1"), tmp_path, download=True)


def test_an_adapter_must_be_fused_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    profile = load_profile("hyper-flux")
    for download in (False, True):
        with pytest.raises(
            WeightsMissing, match=r"Hyper-FLUX.*must be fused into it at scale 0\.125"
        ) as caught:
            find_weights(profile, None, download=download)
        assert "--weights DIR" in caught.value.remedy
    (tmp_path / "fused").mkdir()
    (tmp_path / "fused" / "model_index.json").write_text("{}")
    assert find_weights(profile, tmp_path / "fused") == tmp_path / "fused"


@pytest.mark.parametrize("name", profile_names())
def test_the_architecture_is_of_the_profile_s_denoisers(name):
    profile = load_profile(name)
    assert bool(profile.architecture) != bool(profile.embedded)
    assert not profile.architecture or profile.architecture.keys() == profile.denoisers.keys()
    assert (profile.parameters > 0) == bool(profile.architecture)
    assert (profile.experts is not None) == (len(profile.denoisers) > 1)
