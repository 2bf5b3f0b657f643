"""Adapter files that are given for a policy, against those that it was made with."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from budc.option_names import python_names
from budc.policies.adapter_files import adapter_files, with_further
from budc.policies.listed_adapters import given_adapters, listed_adapters
from budc.schema.errors import CalibrationMismatch, UsageError
from budc.schema.policy import AdapterRule, PolicyDocument, ScaledAdapter

TWO = ["transformer", "transformer_2"]


def written(path: Path) -> Path:
    """Write the file of an adapter, which differs by its name; return its path."""
    tensor = f"transformer.{path.stem}.lora_A.weight"
    header = json.dumps({tensor: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    return path


@pytest.fixture
def style(tmp_path: Path) -> Path:
    return written(tmp_path / "style.safetensors")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return written(tmp_path / "other.safetensors")


@pytest.fixture
def made_with(make_document: Callable[..., PolicyDocument]) -> Callable[..., PolicyDocument]:
    """A policy that was made with these adapters: (file, scale, denoiser)."""

    def make(*adapters: tuple[Path, float, str | None], denoisers: list[str] | None = None) -> PolicyDocument:
        document: Any = make_document()
        scaled = [
            ScaledAdapter(
                name=path.stem,
                file=hashlib.sha256(path.read_bytes()).hexdigest(),
                scale=scale,
                denoiser=denoiser,
            )
            for path, scale, denoiser in adapters
        ]
        (first,) = document.model.denoisers
        named = [replace(first, name=name) for name in denoisers or ["transformer"]]
        rule = AdapterRule(rule="listed" if scaled else "none", scaled=scaled)
        return replace(document, model=replace(document.model, denoisers=named, adapters=rule))

    return make


def test_the_files_of_the_policy_at_their_scales(made_with: Any, style: Path, other: Path) -> None:
    document = made_with((style, 0.5, None), (other, 1.0, None))
    files = listed_adapters(document, [str(other), f"{style}:0.5"])
    assert [(file.name, file.scale) for file in files] == [("other", 1.0), ("style", 0.5)]
    two = made_with((style, 0.5, "transformer"), (style, 0.8, "transformer_2"), denoisers=TWO)
    assert len(listed_adapters(two, [f"{style}:0.5@transformer", f"{style}:0.8@transformer_2"])) == 2
    both = made_with((style, 0.5, None), denoisers=TWO)
    assert len(listed_adapters(both, [f"{style}:0.5@transformer", f"{style}:0.5@transformer_2"])) == 2


def test_none_given_names_the_flag_or_the_argument(made_with: Any, style: Path) -> None:
    for check in (given_adapters, listed_adapters):
        with pytest.raises(
            UsageError, match=r"--lora: the policy was calibrated with style at scale 0\.5"
        ) as caught:
            check(made_with((style, 0.5, None)), [])
        assert "--lora FILE:SCALE" in caught.value.remedy
    with python_names(), pytest.raises(UsageError, match=r"^lora: the policy was calibrated") as caught:
        given_adapters(made_with((style, 0.5, None)), [])
    assert "--" not in caught.value.remedy


def test_another_file_another_scale_one_missing_and_one_too_many_are_refused(
    made_with: Any, style: Path, other: Path, tmp_path: Path
) -> None:
    document = made_with((style, 0.5, None))
    for texts, said in (
        ([f"{other}:0.5"], r"calibrated with style \(sha256 .*none of those given \(.*other\.safetensors"),
        ([str(style)], r"calibrated with it at scale 0\.5 in transformer, not 1"),
        ([f"{style}:0.5", str(other)], r"other\.safetensors: the policy was not calibrated with it"),
    ):
        with pytest.raises(CalibrationMismatch, match=said):
            listed_adapters(document, texts)
    two = made_with((style, 0.5, None), denoisers=TWO)
    with pytest.raises(CalibrationMismatch, match=r"at scale 0\.5 in transformer_2, .*given \(none\)"):
        listed_adapters(two, [f"{style}:0.5@transformer"])


def test_a_policy_without_adapters_takes_none(made_with: Any, style: Path) -> None:
    assert listed_adapters(made_with(), []) == ()
    with pytest.raises(UsageError, match=r"--lora: .* was made without adapters"):
        listed_adapters(made_with(), [str(style)])


def test_one_more_adapter_is_loaded_beside_the_others_or_in_place_of_itself(
    style: Path, tmp_path: Path
) -> None:
    own = adapter_files([f"{style}:0.5"], ["transformer"])
    (tmp_path / "twin").mkdir()
    twin = adapter_files([str(written(tmp_path / "twin" / "style.safetensors"))], ["transformer"])[0]
    assert [file.name for file in with_further(own, twin)] == ["style", "style--2"]
    (stronger,) = adapter_files([f"{style}:0.8"], ["transformer"])
    assert [(file.name, file.scale) for file in with_further(own, stronger)] == [("style", 0.8)]
