"""Weights outside of their graph: in a listed file of the folder, within it, and as long as type and shape need."""

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")

from budc.runtimes.exported.folder import describe_export, verify_export  # noqa: E402
from budc.runtimes.exported.manifest import MANIFEST  # noqa: E402
from budc.schema.errors import UnsafeWeights  # noqa: E402
from budc.schema.hashing import sha256_file  # noqa: E402

COMPUTE, WEIGHTS = "transformer/compute.onnx", "transformer/weights.onnx.data"
CHANNELS = 512
FLOAT = onnx.TensorProto.FLOAT


def located(export: Any, **entries: str) -> Callable[[Any], None]:
    """Return a change of the graph's weight: the good location, but for `entries`."""
    location = {"location": "weights.onnx.data", "offset": "0", "length": str(4 * CHANNELS), **entries}

    def apply(model: Any) -> None:
        export.locate(model.graph.initializer[0], **location)

    return apply


@pytest.mark.parametrize(
    "location",
    ["../../secret.onnx.data", "../../../secret.onnx.data", "/etc/passwd", "..\\secret.onnx.data", "", "."],
)
def test_weights_outside_of_the_folder_are_refused(export: Any, location: str) -> None:
    for parent in (export.folder.parent, export.folder.parent.parent):
        (parent / "secret.onnx.data").write_bytes(bytes(4 * CHANNELS))
    export.change(located(export, location=location))
    export.refused(UnsafeWeights, COMPUTE)


def test_weights_that_the_manifest_does_not_list_are_refused(export: Any) -> None:
    (export.folder / "other").mkdir()
    export.change(located(export, location="other.json"))
    shutil.copy(export.folder / WEIGHTS, export.folder / "transformer/other.json")
    export.refused(UnsafeWeights, COMPUTE, "other.json")


@pytest.mark.parametrize("file", [WEIGHTS, COMPUTE, "tokenizer/tokenizer.json", MANIFEST])
def test_links_out_of_the_folder_are_refused(export: Any, file: str) -> None:
    outside = export.folder.parent / "outside.onnx.data"
    shutil.move(export.folder / file, outside)
    (export.folder / file).symlink_to(outside)
    export.refused(UnsafeWeights, file)


def test_a_folder_that_is_a_link_out_is_refused(export: Any) -> None:
    outside = export.folder.parent / "outside"
    shutil.move(export.folder / "transformer", outside)
    (export.folder / "transformer").symlink_to(outside)
    export.refused(UnsafeWeights, "transformer/")


def test_links_that_stay_inside_are_followed(export: Any) -> None:
    store = export.folder / "store"
    shutil.move(export.folder / WEIGHTS, store)
    (export.folder / WEIGHTS).symlink_to("../store")
    variant, manifest = describe_export(export.folder)
    assert WEIGHTS in variant.files
    assert verify_export(export.folder, variant) == manifest


def test_the_hub_cache_is_opened_by_its_links(export: Any) -> None:
    runtime = pytest.importorskip("onnxruntime")
    cache = export.folder.parent / "models--someone--tiny"
    snapshot, blobs = cache / "snapshots" / "abc", cache / "blobs"
    blobs.mkdir(parents=True)
    for path in [path for path in export.folder.rglob("*") if path.is_file()]:
        blob, link = blobs / sha256_file(path), snapshot / path.relative_to(export.folder)
        shutil.copy(path, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    describe_export(snapshot)
    session = runtime.InferenceSession(snapshot / COMPUTE, providers=["CPUExecutionProvider"])
    ones = {value.name: np.ones((1, CHANNELS), np.float32) for value in session.get_inputs()}
    assert session.run(None, ones)[0].max() == 2.0


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "4"},
        {"offset": "-4"},
        {"offset": "99999999999999999999"},
        {"offset": " 0"},
        {"length": "4"},
        {"length": "-1"},
        {"length": "1_0"},
        {"length": ""},
        {"checksum": "0" * 40},
    ],
)
def test_tensors_that_are_not_where_they_should_be_are_refused(export: Any, entries: dict[str, str]) -> None:
    export.change(located(export, **entries))
    export.refused(UnsafeWeights, COMPUTE, "weight")


def test_a_tensor_that_is_located_twice_is_refused(export: Any) -> None:
    def twice(model: Any) -> None:
        model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")

    export.change(twice)
    export.refused(UnsafeWeights, COMPUTE, "weight")


@pytest.mark.parametrize("dims", [[-CHANNELS], [-1, -CHANNELS], [2**62, 2**62]])
def test_shapes_that_need_other_bytes_are_refused(export: Any, dims: list[int]) -> None:
    def reshape(model: Any) -> None:
        model.graph.initializer[0].dims[:] = dims

    export.change(reshape)
    export.refused(UnsafeWeights, COMPUTE, "weight")


def test_a_type_of_unknown_width_is_refused(export: Any) -> None:
    def retype(model: Any) -> None:
        model.graph.initializer[0].data_type = onnx.TensorProto.STRING

    export.change(retype)
    export.refused(UnsafeWeights, COMPUTE, "weight")


def test_weights_of_a_constant_node_are_checked_too(export: Any) -> None:
    def constant(model: Any) -> None:
        node = onnx.helper.make_node("Constant", [], ["extra"])
        tensor = onnx.TensorProto(name="hidden", data_type=FLOAT, dims=[1])
        export.locate(tensor, location="/etc/passwd", offset="0", length="4")
        node.attribute.append(onnx.helper.make_attribute("value", tensor))
        model.graph.node.append(node)

    export.change(constant)
    export.refused(UnsafeWeights, COMPUTE, "hidden", "/etc/passwd")


def test_truncated_weights_are_refused(export: Any) -> None:
    (export.folder / WEIGHTS).write_bytes(bytes(4 * CHANNELS - 1))
    export.list_files()
    export.refused(UnsafeWeights, WEIGHTS, "only 2047 bytes")


def test_oversize_weights_are_refused(export: Any) -> None:
    (export.folder / WEIGHTS).write_bytes(bytes(4 * CHANNELS + 1))
    export.list_files()
    export.refused(UnsafeWeights, WEIGHTS, "ends at")
