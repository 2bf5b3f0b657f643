"""Which models are supported is known, and others are refused, before torch is imported."""

import subprocess
import sys

import pytest
from msgspec.structs import replace

from budc.compiler.models.supported import ADAPTERS, check_exportable, check_supported
from budc.policies.profile import load_profile, profile_names
from budc.schema.errors import UnsupportedModel


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_is_supported(name: str) -> None:
    check_supported(load_profile(name))


def test_an_unknown_pipeline_class_is_refused_with_those_that_are_known() -> None:
    profile = replace(load_profile("wan2.1"), pipeline_class="LTXPipeline")
    with pytest.raises(UnsupportedModel) as caught:
        check_supported(profile)
    assert str(caught.value).startswith("cannot compile for LTXPipeline, only for ")
    assert all(name in str(caught.value) for name in ADAPTERS)


@pytest.mark.parametrize(
    ("name", "rule", "rules"),
    [
        ("wan2.1", "distilled", "classifier-free or none"),
        ("flux.1-dev", "classifier-free", "distilled or none"),
        ("qwen-image", "none", "classifier-free"),
    ],
)
def test_guidance_that_a_pipeline_does_not_have_is_refused(name: str, rule: str, rules: str) -> None:
    profile = replace(load_profile(name), guidance_rule=rule)
    with pytest.raises(UnsupportedModel, match=f'guidance_rule is "{rule}", and a .* has {rules}$'):
        check_supported(profile)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wan2.1-i2v-14b-480p", {}, "starts from an image"),
        ("wan2.1", {"quantization": "torchao-int8"}, "is quantised"),
    ],
)
def test_what_no_export_is_made_of_is_refused(name: str, settings: dict[str, str], message: str) -> None:
    with pytest.raises(UnsupportedModel, match=f"export: {name} {message}"):
        check_exportable(replace(load_profile(name), **settings), "export")


def test_one_denoiser_and_two_are_exported() -> None:
    for name in ("wan2.1", "wan2.2"):
        check_exportable(load_profile(name), "export")


def test_a_model_is_refused_before_torch_is_imported() -> None:
    code = """
import sys
from msgspec.structs import replace
from budc.compiler.models.supported import check_supported
from budc.policies.profile import load_profile
from budc.schema.errors import UnsupportedModel
try:
    check_supported(replace(load_profile("wan2.1"), pipeline_class="LTXPipeline"))
except UnsupportedModel:
    print(sorted({"torch", "diffusers"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
