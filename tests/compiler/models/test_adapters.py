"""Adapters loaded into a model folder's denoisers, for every kind of pipeline that has another way of its own."""

import pytest
import torch
from lora import write_lora

from budc.compiler.models.adapters import with_adapters
from budc.compiler.models.binding import model_binding
from budc.compiler.models.model import load_model
from budc.policies.adapter_files import adapter_files
from budc.policies.profile import load_profile
from budc.schema.errors import UnsupportedModel

CPU = torch.device("cpu")


def bound(name, folder, *texts):
    profile = load_profile(name)
    model = load_model(profile, folder, CPU)
    files = adapter_files(texts, list(profile.denoisers))
    return model, with_adapters(model, model_binding(profile, folder), files).adapters.scaled


def test_flux(flux_profile, flux_folder, tmp_path):
    transformer = load_model(load_profile(flux_profile), flux_folder, CPU).denoiser
    style = write_lora(tmp_path / "style.safetensors", transformer)
    model, (adapter,) = bound(flux_profile, flux_folder, f"{style}:0.5")
    assert (adapter.name, adapter.scale, adapter.denoiser) == ("style", 0.5, None)
    assert not any(parameter.requires_grad for parameter in model.denoiser.parameters())
    assert model.denoiser.active_adapters() == ["style"]


def test_each_of_two_denoisers_has_its_own_or_both_have_the_same(pair_profile, pair_folder, tmp_path):
    transformer = load_model(load_profile(pair_profile), pair_folder, CPU).denoiser
    high = write_lora(tmp_path / "high.safetensors", transformer)
    low = write_lora(tmp_path / "low.safetensors", transformer, seed=1)
    _, own = bound(pair_profile, pair_folder, f"{high}@transformer", f"{low}:0.5@transformer_2")
    assert [(adapter.name, adapter.scale, adapter.denoiser) for adapter in own] == [
        ("high", 1.0, "transformer"),
        ("low", 0.5, "transformer_2"),
    ]
    _, shared = bound(pair_profile, pair_folder, str(high))
    assert [adapter.denoiser for adapter in shared] == ["transformer", "transformer_2"]
    assert {adapter.loaded for adapter in shared} == {own[0].loaded}


def test_an_adapter_for_another_model_is_refused(flux_profile, flux_folder, model, tmp_path):
    foreign = write_lora(tmp_path / "foreign.safetensors", model.denoiser)
    with pytest.raises(UnsupportedModel, match=r"foreign\.safetensors"):
        bound(flux_profile, flux_folder, str(foreign))
