"""Export folders as a stranger could have made them: each attack is one change to a small good folder.

Unless it says otherwise, an attack lists the right digests of its own files, so that only the rules are left
to refuse it.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
np = pytest.importorskip("numpy")

import budc.runtimes.onnx_graphs as onnx_graphs  # noqa: E402
from budc.runtimes.manifest import INPUTS, MANIFEST, OUTPUTS, Manifest, read_manifest  # noqa: E402
from budc.runtimes.onnx_folder import describe_export, verify_export  # noqa: E402
from budc.schema.errors import (  # noqa: E402
    ModelError,
    UnsafeWeights,
    UnsupportedVersion,
    WeightsMismatch,
    WeightsMissing,
)
from budc.schema.hashing import sha256_file  # noqa: E402
from budc.schema.policy import Variant  # noqa: E402

COMPUTE, WEIGHTS = "transformer/compute.onnx", "transformer/weights.onnx.data"
CHANNELS = 512
FLOAT = onnx.TensorProto.FLOAT


class Export:
    """A good export of a model that multiplies, and what it takes to change it and list it again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("transformer", "tokenizer", "scheduler", "text_encoder", "vae_decoder"):
            (folder / name).mkdir(parents=True)
        (folder / "tokenizer/tokenizer.json").write_text("{}")
        (folder / "scheduler/scheduler_config.json").write_text("{}")
        (folder / WEIGHTS).write_bytes(np.full(CHANNELS, 2.0, np.float32).tobytes())
        self.graphs: dict[str, Any] = {}
        for name, file in {
            "compute": COMPUTE,
            "reuse": "transformer/reuse.onnx",
            "reuse_terms": "transformer/reuse_terms.onnx",
            "text_encoder": "text_encoder/model.onnx",
            "vae_decoder": "vae_decoder/model.onnx",
        }.items():
            self.graphs[name] = {
                "file": file,
                "inputs": [self._spec(value) for value in INPUTS[name]],
                "outputs": [self._spec(value) for value in OUTPUTS[name]],
            }
            onnx.save(self._model(name), folder / file)
        self.list_files()

    def _spec(self, name: str) -> dict[str, Any]:
        return {"name": name, "dtype": "float32", "shape": [None, CHANNELS]}

    def _model(self, name: str) -> Any:
        value = onnx.helper.make_tensor_value_info
        inputs, outputs = (
            [value(spec["name"], FLOAT, ["batch", CHANNELS]) for spec in self.graphs[name][side]]
            for side in ("inputs", "outputs")
        )
        weight = onnx.TensorProto(name="weight", data_type=FLOAT, dims=[CHANNELS])
        if name in ("compute", "reuse", "reuse_terms"):
            external(weight, location="weights.onnx.data", offset="0", length=str(4 * CHANNELS))
        else:
            weight.raw_data = np.full(CHANNELS, 2.0, np.float32).tobytes()
        nodes = [
            onnx.helper.make_node("Mul", [inputs[0].name, "weight"], [output.name]) for output in outputs
        ]
        graph = onnx.helper.make_graph(nodes, name, inputs, outputs, [weight])
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10)

    def list_files(self, **fields: Any) -> None:
        """Write the manifest with the digests of the files as they are now; `fields` replace its own."""
        files = {
            str(path.relative_to(self.folder)): sha256_file(path)
            for path in self.folder.rglob("*")
            if path.is_file() and path.name != MANIFEST
        }
        manifest = {
            "formatVersion": "1.0",
            "profile": "tiny",
            "family": "tiny",
            "pipelineClass": "WanPipeline",
            "denoiserClass": "WanTransformer3DModel",
            "dtype": "float32",
            "opset": 23,
            "versions": {},
            "shape": {"height": 8, "width": 8, "frames": 1},
            "latents": [1, 1, 1, CHANNELS],
            "text": {
                "cleaning": "wan",
                "tokens": 4,
                "paddingId": 0,
                "paddingToken": "<pad>",
                "endId": 1,
                "tokenizer": "tokenizer/tokenizer.json",
            },
            "branches": ["cond"],
            "negativePrompt": "",
            "scheduler": "scheduler/scheduler_config.json",
            "graphs": self.graphs,
            "files": files,
            **fields,
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest))

    def change(self, apply: Callable[[Any], object], file: str = COMPUTE) -> None:
        """Change a graph, and list the files again."""
        model = onnx.load(self.folder / file, load_external_data=False)
        apply(model)
        onnx.save(model, self.folder / file)
        self.list_files()

    def refused(self, error: type[ModelError], *parts: str) -> None:
        """Expect that the folder is refused, in a message that holds `parts`."""
        with pytest.raises(error) as caught:
            describe_export(self.folder)
        assert all(part in str(caught.value) for part in parts), str(caught.value)


def external(tensor: Any, **entries: str) -> None:
    """Say that a tensor lies outside of its graph."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def located(**entries: str) -> Callable[[Any], None]:
    """A change: where the weight of the graph lies."""
    wanted = {"location": "weights.onnx.data", "offset": "0", "length": str(4 * CHANNELS), **entries}

    def apply(model: Any) -> None:
        external(model.graph.initializer[0], **wanted)

    return apply


@pytest.fixture
def export(tmp_path: Path) -> Export:
    return Export(tmp_path / "export")


def test_a_good_folder_is_described_and_verified(export: Export) -> None:
    variant, manifest = describe_export(export.folder)
    assert variant.name == "onnx-float32"
    assert set(variant.files) == {*manifest.files, MANIFEST}
    assert set(manifest.files) == {
        str(path.relative_to(export.folder))
        for path in export.folder.rglob("*")
        if path.is_file() and path.name != MANIFEST
    }
    assert verify_export(export.folder, variant) == manifest


# External data -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "location",
    ["../../secret.onnx.data", "../../../secret.onnx.data", "/etc/passwd", "..\\secret.onnx.data", "", "."],
)
def test_weights_outside_of_the_folder_are_refused(export: Export, location: str) -> None:
    for place in (export.folder.parent, export.folder.parent.parent):
        (place / "secret.onnx.data").write_bytes(bytes(4 * CHANNELS))
    export.change(located(location=location))
    export.refused(UnsafeWeights, COMPUTE)


def test_weights_that_the_manifest_does_not_list_are_refused(export: Export) -> None:
    (export.folder / "other").mkdir()
    export.change(located(location="other.json"))
    shutil.copy(export.folder / WEIGHTS, export.folder / "transformer/other.json")
    export.refused(UnsafeWeights, COMPUTE, "other.json")


@pytest.mark.parametrize("file", [WEIGHTS, COMPUTE, "tokenizer/tokenizer.json", MANIFEST])
def test_links_out_of_the_folder_are_refused(export: Export, file: str) -> None:
    outside = export.folder.parent / "outside.onnx.data"
    shutil.move(export.folder / file, outside)
    (export.folder / file).symlink_to(outside)
    export.refused(UnsafeWeights, file)


def test_a_folder_that_is_a_link_out_is_refused(export: Export) -> None:
    outside = export.folder.parent / "outside"
    shutil.move(export.folder / "transformer", outside)
    (export.folder / "transformer").symlink_to(outside)
    export.refused(UnsafeWeights, "transformer/")


def test_links_that_stay_inside_are_followed(export: Export) -> None:
    store = export.folder / "store"
    shutil.move(export.folder / WEIGHTS, store)
    (export.folder / WEIGHTS).symlink_to("../store")
    variant, manifest = describe_export(export.folder)
    assert WEIGHTS in variant.files
    assert verify_export(export.folder, variant) == manifest


def test_the_hub_cache_is_opened_by_its_links(export: Export) -> None:
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
def test_tensors_that_are_not_where_they_should_be_are_refused(
    export: Export, entries: dict[str, str]
) -> None:
    export.change(located(**entries))
    export.refused(UnsafeWeights, COMPUTE, "weight")


def test_a_tensor_that_is_located_twice_is_refused(export: Export) -> None:
    def twice(model: Any) -> None:
        model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")

    export.change(twice)
    export.refused(UnsafeWeights, COMPUTE, "weight")


@pytest.mark.parametrize("dims", [[-CHANNELS], [-1, -CHANNELS], [2**62, 2**62]])
def test_shapes_that_need_other_bytes_are_refused(export: Export, dims: list[int]) -> None:
    def reshape(model: Any) -> None:
        model.graph.initializer[0].dims[:] = dims

    export.change(reshape)
    export.refused(UnsafeWeights, COMPUTE, "weight")


def test_a_type_of_unknown_width_is_refused(export: Export) -> None:
    def retype(model: Any) -> None:
        model.graph.initializer[0].data_type = onnx.TensorProto.STRING

    export.change(retype)
    export.refused(UnsafeWeights, COMPUTE, "weight")


def test_weights_of_a_constant_node_are_looked_at_too(export: Export) -> None:
    def constant(model: Any) -> None:
        node = onnx.helper.make_node("Constant", [], ["extra"])
        tensor = onnx.TensorProto(name="hidden", data_type=FLOAT, dims=[1])
        external(tensor, location="/etc/passwd", offset="0", length="4")
        node.attribute.append(onnx.helper.make_attribute("value", tensor))
        model.graph.node.append(node)

    export.change(constant)
    export.refused(UnsafeWeights, COMPUTE, "hidden", "/etc/passwd")


def test_truncated_weights_are_refused(export: Export) -> None:
    (export.folder / WEIGHTS).write_bytes(bytes(4 * CHANNELS - 1))
    export.list_files()
    export.refused(UnsafeWeights, WEIGHTS, "cut short")


def test_oversize_weights_are_refused(export: Export) -> None:
    (export.folder / WEIGHTS).write_bytes(bytes(4 * CHANNELS + 1))
    export.list_files()
    export.refused(UnsafeWeights, WEIGHTS, "ends at")


# Graphs --------------------------------------------------------------------------------------------------


def _node(model: Any, *arguments: Any, **options: Any) -> None:
    model.graph.node.append(onnx.helper.make_node(*arguments, **options))


def _if(model: Any) -> None:
    output = onnx.helper.make_tensor_value_info("branch", FLOAT, [1])
    graph = onnx.helper.make_graph([], "then", [], [output])
    _node(model, "If", ["hidden_states"], ["branch"], then_branch=graph, else_branch=graph)


def _function(model: Any) -> None:
    opset = [onnx.helper.make_opsetid("", 23)]
    body = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    model.functions.append(onnx.helper.make_function("", "Mul", ["x"], ["y"], body, opset))


def _sparse(model: Any) -> None:
    model.graph.sparse_initializer.add()


def _sparse_attribute(model: Any) -> None:
    model.graph.node[0].attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    model.graph.node[0].attribute[0].sparse_tensor.dims.append(1)


def _training(model: Any) -> None:
    model.training_info.add()


@pytest.mark.parametrize(
    ("attack", "part"),
    [
        (lambda model: _node(model, "Steal", ["weight"], ["x"]), "Steal"),
        (lambda model: _node(model, "Gelu", ["weight"], ["x"], domain="com.microsoft"), "com.microsoft::Gelu"),
        (lambda model: _node(model, "TreeEnsemble", ["weight"], ["x"], domain="ai.onnx.ml"), "ai.onnx.ml"),
        (lambda model: model.opset_import.append(onnx.helper.make_opsetid("evil", 1)), "evil"),
        (lambda model: model.opset_import.append(onnx.helper.make_opsetid("", 1)), "opset 23"),
        (lambda model: setattr(model.opset_import[0], "version", 9999), "9999"),
        (_function, "functions"),
        (_training, "training"),
        (_sparse, "sparse"),
        (_sparse_attribute, "sparse"),
        (_if, "If"),
    ],
)  # fmt: skip
def test_graphs_with_more_than_standard_operators_are_refused(
    export: Export, attack: Callable[[Any], object], part: str
) -> None:
    export.change(attack)
    export.refused(UnsafeWeights, COMPUTE, part)


def _add_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("password", FLOAT, [1]))


def _replaceable_weight(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("weight", FLOAT, [CHANNELS]))


def _repeat_input(model: Any) -> None:
    model.graph.input.append(model.graph.input[0])


def _add_output(model: Any) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("leak", FLOAT, [1]))


def _drop_input(model: Any) -> None:
    del model.graph.input[-1]


def _widen(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = CHANNELS * 2


def _fix_batch(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def _halve(model: Any) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16


def _no_tensor(model: Any) -> None:
    model.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type = FLOAT


@pytest.mark.parametrize(
    ("attack", "part"),
    [
        (_add_input, "unexpected input 'password'"),
        (_replaceable_weight, "unexpected input 'weight'"),
        (_add_output, "unexpected output 'leak'"),
        (_repeat_input, "hidden_states"),
        (_drop_input, "encoder_hidden_states"),
        (_widen, "hidden_states"),
        (_fix_batch, "hidden_states"),
        (_halve, "float16"),
        (_no_tensor, "hidden_states"),
    ],
)
def test_graphs_that_are_called_in_another_way_are_refused(
    export: Export, attack: Callable[[Any], object], part: str
) -> None:
    export.change(attack)
    export.refused(UnsafeWeights, COMPUTE, part)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"not a graph"])
def test_files_that_are_no_graphs_are_refused(export: Export, data: bytes) -> None:
    (export.folder / COMPUTE).write_bytes(data)
    export.list_files()
    export.refused(UnsafeWeights, COMPUTE)


def test_an_oversize_graph_is_refused_unread(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graphs, "GRAPH_LIMIT", 100)
    export.refused(UnsafeWeights, COMPUTE, "over 100 bytes")


# Digests and files beside --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", [WEIGHTS, COMPUTE, "tokenizer/tokenizer.json", "scheduler/scheduler_config.json"]
)
def test_a_file_with_other_content_is_refused(export: Export, file: str) -> None:
    path = export.folder / file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    export.refused(WeightsMismatch, file)


def test_a_missing_file_is_refused(export: Export) -> None:
    (export.folder / WEIGHTS).unlink()
    export.refused(WeightsMissing, WEIGHTS)


def test_a_pipe_in_place_of_a_file_is_refused(export: Export) -> None:
    (export.folder / COMPUTE).unlink()
    os.mkfifo(export.folder / COMPUTE)
    export.refused(UnsafeWeights, COMPUTE)


@pytest.mark.parametrize("name", ["transformer/other.onnx", "transformer/a.onnx.data", "vae_decoder/x.bin"])
def test_a_file_that_could_be_taken_for_a_listed_one_is_refused(export: Export, name: str) -> None:
    (export.folder / name).write_bytes(b"x")
    export.refused(UnsafeWeights, name)


def test_a_policy_that_lists_another_export_is_refused(export: Export) -> None:
    variant, _ = describe_export(export.folder)
    export.list_files(profile="another")
    with pytest.raises(WeightsMismatch, match=MANIFEST):
        verify_export(export.folder, variant)


def test_a_policy_that_lists_less_than_the_manifest_is_refused(export: Export) -> None:
    variant, _ = describe_export(export.folder)
    fewer = {name: digest for name, digest in variant.files.items() if not name.startswith("tokenizer")}
    with pytest.raises(WeightsMismatch, match="other files"):
        verify_export(export.folder, Variant(name=variant.name, files=fewer))


def test_a_policy_that_does_not_list_the_manifest_is_refused(export: Export) -> None:
    variant, manifest = describe_export(export.folder)
    with pytest.raises(WeightsMismatch, match=MANIFEST):
        verify_export(export.folder, Variant(name=variant.name, files=manifest.files))


# The manifest --------------------------------------------------------------------------------------------


def _manifest(export: Export) -> dict[str, Any]:
    return dict(json.loads((export.folder / MANIFEST).read_text()))


def test_the_manifest_is_read_as_it_was_written(export: Export) -> None:
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
        {"files": {}},
        {"files": {"../x.json": "0" * 64}},
        {"files": {"/x.json": "0" * 64}},
        {"graphs": {}},
        {"scheduler": "../scheduler_config.json"},
        {"scheduler": "scheduler/other.json"},
        {"negativePrompt": "two\nlines"},
        {"branches": []},
        {"versions": {"a b": "1"}},
    ],
)
def test_malformed_manifests_are_refused(export: Export, fields: dict[str, Any]) -> None:
    (export.folder / MANIFEST).write_text(json.dumps(_manifest(export) | fields))
    export.refused(UnsafeWeights, MANIFEST)


@pytest.mark.parametrize("side", ["inputs", "outputs"])
@pytest.mark.parametrize("change", ["rename", "repeat", "reverse"])
def test_manifests_with_other_calls_are_refused(export: Export, side: str, change: str) -> None:
    specs = export.graphs["compute"][side]
    changed: Iterable[Any] = {
        "rename": [{**specs[0], "name": "other"}, *specs[1:]],
        "repeat": [*specs, specs[0]],
        "reverse": specs[::-1],
    }[change]
    export.graphs["compute"][side] = list(changed)
    export.list_files()
    export.refused(UnsafeWeights, MANIFEST, COMPUTE)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"formatVersion": NaN}', '{"a": 1, "a": 2}', "[" * 10_000, "\ud800"]
)
def test_manifests_that_are_not_strict_json_are_refused(export: Export, text: str) -> None:
    (export.folder / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    export.refused(UnsafeWeights, MANIFEST)


def test_an_oversize_manifest_is_refused(export: Export) -> None:
    (export.folder / MANIFEST).write_bytes(b" " * (1 << 20) + b"{}")
    export.refused(UnsafeWeights, MANIFEST)


def test_a_manifest_of_a_later_version_is_told_apart(export: Export) -> None:
    export.list_files(formatVersion="1.1")
    with pytest.raises(UnsupportedVersion, match=r"1\.1"):
        describe_export(export.folder)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match=MANIFEST):
        describe_export(tmp_path)
