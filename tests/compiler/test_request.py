from pathlib import Path

import pytest

from budc.compiler.request import make_request, read_source
from budc.schema.errors import UsageError


def test_flags_override_the_source_and_paths_are_relative_to_it(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('model = "wan2.1-nano"\nbudget = 10\nseed = 3\ncalibration = "prompts.txt"\n')
    request = make_request(read_source(path), {"budget": "2.8x", "seed": None})
    assert (request.model, request.budget, request.seed) == ("wan2.1-nano", "2.8x", 3)
    assert request.calibration == tmp_path / "prompts.txt"


def test_an_unknown_key_suggests_the_nearest(tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text('model = "wan2.1-nano"\nbudjet = "10"\n')
    with pytest.raises(UsageError, match="unknown key 'budjet'") as caught:
        read_source(path)
    assert "budget" in caught.value.remedy


@pytest.mark.parametrize(
    "text", ["model = ", "\xff", 'model = "a"\nmodel = "b"\n'], ids=["truncated", "not UTF-8", "repeated key"]
)
def test_a_source_that_is_not_toml_is_refused(tmp_path, text):
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=r"policy\.toml"):
        read_source(path)


def test_a_missing_source_is_refused():
    with pytest.raises(UsageError, match="cannot read"):
        read_source(Path("nowhere.toml"))


@pytest.mark.parametrize(
    "source",
    [
        {"budget": "10"},
        {"model": "wan2.1-nano"},
        {"model": 3, "budget": "10"},
        {"model": "wan2.1-nano", "budget": "10", "seed": "zero"},
        {"model": "wan2.1-nano", "budget": "10", "seed": -1},
        {"model": "wan2.1-nano", "budget": "10", "steps": 0},
        {"model": "wan2.1-nano", "budget": "10", "revision": 0},
        {"model": "wan2.1-nano", "budget": "10", "download": "yes"},
        {"model": "wan2.1-nano", "budget": ["10"]},
    ],
    ids=str,
)
def test_bad_values_are_refused(source):
    with pytest.raises(UsageError):
        make_request(source, {})
