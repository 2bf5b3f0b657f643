"""The manifest: strict JSON of this version, with the graphs' signatures."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from budc.runtimes.exported.folder import describe_export
from budc.runtimes.exported.manifest import MANIFEST, Manifest, read_manifest
from budc.runtimes.exported.signatures import INPUTS
from budc.schema.errors import UnsafeWeights, UnsupportedVersion, WeightsMissing

COMPUTE, CHANNELS = "transformer/compute.onnx", 512


def _manifest(export: Any) -> dict[str, Any]:
    return dict(json.loads((export.folder / MANIFEST).read_text()))


def test_the_manifest_is_read_as_it_was_written(export: Any) -> None:
    manifest = read_manifest(export.folder)
    assert isinstance(manifest, Manifest)
    assert [spec.name for spec in manifest.graphs["compute"].inputs] == list(INPUTS["compute"])
    assert manifest.graphs["compute"].inputs[0].shape == [None, CHANNELS]


@pytest.mark.parametrize(
    "fields",
    [
        {"surprise": 1},
        {"dtype": "bfloat16"},
        {"opset": 19},
        {"opset": "23"},
        {"latents": []},
        {"latents": [0, 1, 1, 1]},
        {"latents": [16, 10**9, 10**9, 10**9]},
        {"surprise": "\\" * 100_000},
        {"files": {}},
        {"files": {"../x.json": "0" * 64}},
        {"files": {"/x.json": "0" * 64}},
        {"graphs": {}},
        {"scheduler": "../scheduler_config.json"},
        {"scheduler": "scheduler/other.json"},
        {"negativePrompt": "two\nlines"},
        {"branches": []},
        {"versions": {"a b": "1"}},
        {"packed": True},
        {"packed": True, "latents": [1, 3, CHANNELS]},
        {"pooledText": None},
        {"guidance": "3.5"},
    ],
)
def test_malformed_manifests_are_refused(export: Any, fields: dict[str, Any]) -> None:
    (export.folder / MANIFEST).write_text(json.dumps(_manifest(export) | fields))
    export.refused(UnsafeWeights, MANIFEST)


@pytest.mark.parametrize(
    ("graph", "shape"),
    [
        ("compute", [None, 10**9, 10**9]),
        ("vae_decoder", [10**15] * 8),
        ("text_encoder", [None, CHANNELS + 1]),
        ("text_encoder", [None]),
        ("text_encoder", [None, CHANNELS, 1]),
    ],
)
def test_absurd_shapes_and_token_counts_are_refused(export: Any, graph: str, shape: list[Any]) -> None:
    export.graphs[graph]["inputs"][0]["shape"] = shape
    export.list_files()
    export.refused(UnsafeWeights, MANIFEST, export.graphs[graph]["inputs"][0]["name"])


def test_a_deep_manifest_is_refused(export: Any) -> None:
    (export.folder / MANIFEST).write_text("[" * 100_000)
    export.refused(UnsafeWeights, "nested")


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("change", ["rename", "repeat", "reverse"])
def test_manifests_with_other_calls_are_refused(export: Any, side: str, change: str) -> None:
    specs = export.graphs["compute"][side]
    changed: Iterable[Any] = {
        "rename": [{**specs[0], "name": "other"}, *specs[1:]],
        "repeat": [*specs, specs[0]],
        "reverse": specs[::-1],
    }[change]
    export.graphs["compute"][side] = list(changed)
    export.list_files()
    export.refused(UnsafeWeights, MANIFEST, COMPUTE)


def test_text_encoders_may_pool_nothing_and_then_nothing_is_taken(export: Any) -> None:
    graphs = export.graphs
    graphs["text_encoder"]["inputs"].pop()
    encoder = graphs["text_encoder"]
    encoder["outputs"] = [spec for spec in encoder["outputs"] if spec["name"] != "pooled_projections"]
    manifest = _manifest(export) | {"graphs": graphs, "pooledText": None}
    (export.folder / MANIFEST).write_text(json.dumps(manifest))
    export.refused(UnsafeWeights, "pooled_projections", "text_encoder")
    for name in ("compute", "reuse", "reuse_terms"):
        graphs[name]["inputs"] = [s for s in graphs[name]["inputs"] if s["name"] != "pooled_projections"]
    (export.folder / MANIFEST).write_text(json.dumps(manifest))
    assert read_manifest(export.folder).conditions == ("encoder_hidden_states", "encoder_attention_mask")


def test_packed_latents_are_cells(export: Any) -> None:
    export.list_files(packed=True, latents=[4, 6, 8])
    assert read_manifest(export.folder).sample == (12, 16)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"formatVersion": NaN}', '{"a": 1, "a": 2}', "[" * 10_000, "\ud800"]
)
def test_manifests_that_are_not_strict_json_are_refused(export: Any, text: str) -> None:
    (export.folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    export.refused(UnsafeWeights, MANIFEST)


def test_an_oversize_manifest_is_refused(export: Any) -> None:
    (export.folder / MANIFEST).write_bytes(b" " * (1 << 20) + b"{}")
    export.refused(UnsafeWeights, MANIFEST)


def test_a_manifest_of_a_later_version_is_told_apart(export: Any) -> None:
    export.list_files(formatVersion="1.1")
    with pytest.raises(UnsupportedVersion, match=r"1\.1"):
        describe_export(export.folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=MANIFEST):
        describe_export(tmp_path)
