"""Files of an export: each with the digest that manifest and policy list, and no unlisted file beside them."""

import os
from typing import Any

import pytest

pytest.importorskip("onnx")

from budc.runtimes.exported.folder import describe_export, verify_export
from budc.runtimes.exported.manifest import MANIFEST
from budc.schema.errors import UnsafeWeights, WeightsMismatch, WeightsMissing
from budc.schema.policy import Variant

COMPUTE, WEIGHTS = "transformer/compute.onnx", "transformer/weights.onnx.data"


def test_a_good_folder_is_described_and_verified(export: Any) -> None:
    variant, manifest = describe_export(export.folder)
    assert variant.name == "onnx-float32"
    assert set(variant.files) == {*manifest.files, MANIFEST}
    assert set(manifest.files) == {
        str(path.relative_to(export.folder))
        for path in export.folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    assert verify_export(export.folder, variant) == manifest


@pytest.mark.parametrize(
    "file", [WEIGHTS, COMPUTE, "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"]
)
def test_a_file_with_other_content_is_refused(export: Any, file: str) -> None:
    path = export.folder / file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    export.refused(WeightsMismatch, file)


def test_a_missing_file_is_refused(export: Any) -> None:
    (export.folder / WEIGHTS).unlink()
    export.refused(WeightsMissing, WEIGHTS)


def test_a_pipe_in_place_of_a_file_is_refused(export: Any) -> None:
    (export.folder / COMPUTE).unlink()
    os.mkfifo(export.folder / COMPUTE)
    export.refused(UnsafeWeights, COMPUTE)


@pytest.mark.parametrize("name", ["transformer/other.onnx", "transformer/a.onnx.data", "vae_decoder/x.bin"])
def test_a_file_that_could_be_taken_for_a_listed_one_is_refused(export: Any, name: str) -> None:
    (export.folder / name).write_bytes(b"x")
    export.refused(UnsafeWeights, name)


def test_a_policy_that_lists_another_export_is_refused(export: Any) -> None:
    variant, _ = describe_export(export.folder)
    export.list_files(profile="another")
    with pytest.raises(WeightsMismatch, match=MANIFEST):
        verify_export(export.folder, variant)


def test_a_policy_that_lists_less_than_the_manifest_is_refused(export: Any) -> None:
    variant, _ = describe_export(export.folder)
    fewer = {name: digest for name, digest in variant.files.items() if not name.startswith("tokenizer")}
    with pytest.raises(WeightsMismatch, match="other files"):
        verify_export(export.folder, Variant(name=variant.name, files=fewer))


def test_a_policy_that_does_not_list_the_manifest_is_refused(export: Any) -> None:
    variant, manifest = describe_export(export.folder)
    with pytest.raises(WeightsMismatch, match=MANIFEST):
        verify_export(export.folder, Variant(name=variant.name, files=manifest.files))
