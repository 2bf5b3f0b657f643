"""What binds a policy to a model: a folder that a library saved again passes, whatever it then writes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

pytest.importorskip("torch")

from diffusers import WanPipeline

from budc.compiler.models.binding import model_binding
from budc.policies.profile import load_profile
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.weights import verify_model
from budc.runtimes.sampling.network_config import class_defaults, library_defaults
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import WeightsMismatch
from budc.schema.model_files import SAVED_AGAIN, accepted_files
from budc.schema.policy import ModelBinding, PolicyDocument


@pytest.fixture(scope="module")
def binding(wan_folder: Path) -> ModelBinding:
    return model_binding(load_profile("wan2.1-nano"), wan_folder)


@pytest.fixture(scope="module")
def document(binding: ModelBinding, make_document: Callable[..., PolicyDocument]) -> PolicyDocument:
    return make_document(model=binding)


def test_settings_are_those_of_the_configuration(binding: ModelBinding) -> None:
    (denoiser,) = binding.denoisers
    settings = denoiser.config or {}
    assert settings["num_layers"] == 2
    assert settings["patch_size"] == [1, 2, 2]
    assert not [name for name in settings if name.startswith("_")]


@pytest.mark.parametrize("shard", ["10GB", "200KB"])
def test_a_pipeline_that_was_saved_again_is_the_same_model(
    wan_folder: Path, document: PolicyDocument, tmp_path: Path, shard: str
) -> None:
    WanPipeline.from_pretrained(wan_folder).save_pretrained(tmp_path, max_shard_size=shard)
    variant = accepted_files(tmp_path, document.model, DigestCache())
    assert variant.name == SAVED_AGAIN
    assert (len(variant.files) > 2) is (shard == "200KB")
    (denoiser,) = document.model.denoisers
    transformer = WanPipeline.from_pretrained(tmp_path).transformer
    for folder in (None, tmp_path):
        settings = SettingsCheck()
        verify_model(transformer, denoiser, document, settings, weights_dir=folder, digests=DigestCache())
        assert not settings.differences


@pytest.mark.parametrize("known", [True, False])
def test_a_network_loaded_with_other_settings_than_its_files_is_refused(
    wan_folder: Path, document: PolicyDocument, known: bool
) -> None:
    """Files and weights are those of the policy: only what computes with them is not."""
    pipe = WanPipeline.from_pretrained(wan_folder)
    (denoiser,) = document.model.denoisers
    usual = pipe.transformer.config.eps
    pipe.transformer.register_to_config(eps=1e-3, _name_or_path=str(wan_folder) if known else "")
    with pytest.raises(WeightsMismatch, match=f"was loaded with eps 0.001, the policy is for {usual}"):
        verify_model(pipe.transformer, denoiser, document, SettingsCheck(), digests=DigestCache())
    old = replace(denoiser, config=None)
    verify_model(pipe.transformer, old, document, SettingsCheck(), digests=DigestCache())


def test_defaults_are_those_of_the_librarys_class() -> None:
    defaults: Any = library_defaults("WanTransformer3DModel")
    assert defaults["patch_size"] == (1, 2, 2)
    assert library_defaults("NoSuchNetwork") == {}
    assert "self" not in class_defaults(type(SettingsCheck()))
