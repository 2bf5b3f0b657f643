"""Graphs of an export: standard operators alone, with the signature that the manifest lists."""

from collections.abc import Callable
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

import budc.runtimes.exported.graphs as graphs  # noqa: E402
from budc.schema.errors import UnsafeWeights  # noqa: E402

COMPUTE, CHANNELS = "transformer/compute.onnx", 512
FLOAT = onnx.TensorProto.FLOAT


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
    export: Any, attack: Callable[[Any], object], part: str
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
def test_graphs_with_another_signature_are_refused(
    export: Any, attack: Callable[[Any], object], part: str
) -> None:
    export.change(attack)
    export.refused(UnsafeWeights, COMPUTE, part)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"not a graph"])
def test_files_that_are_no_graphs_are_refused(export: Any, data: bytes) -> None:
    (export.folder / COMPUTE).write_bytes(data)
    export.list_files()
    export.refused(UnsafeWeights, COMPUTE)


def test_an_oversize_graph_is_refused_unread(export: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "GRAPH_LIMIT", 100)
    export.refused(UnsafeWeights, COMPUTE, "over 100 bytes")
