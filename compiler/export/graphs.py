"""Graphs: a form becomes an ONNX model by torch's dynamo exporter, without traces of where it was made."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast, get_args

import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
)

from budc.compiler.export.modules import ExportModule
from budc.compiler.export.strided import stack_strided_writes
from budc.runtimes.exported.manifest import INPUTS, DType, TensorSpec
from budc.schema.errors import UnsupportedModel

OPSET = 23
"""The first with attention and RMS norm as operators of their own, for which runtimes have fused kernels."""

_TRACED = 2
"""A batch of one would be taken for a constant."""
_ALIKE = 63
"""From 64 samples on, some of diffusers' layers lay out memory otherwise. The graph knows no layout, and no limit."""


def to_graph(form: ExportModule) -> ir.Model:
    """Export a form with dynamic batch; inputs that its module does not use are left out.

    Raises:
        UnsupportedModel: the exporter cannot express the module.
    """
    batch = torch.export.Dim("batch", min=1, max=_ALIKE)
    with torch.no_grad(), _quiet():
        try:
            traced = torch.export.export(
                form.module, tuple(form.batch(_TRACED).values()), dynamic_shapes=_shapes(form, batch)
            )
            stack_strided_writes(traced)
            program = torch.onnx.export(
                traced,
                input_names=INPUTS[form.name],
                output_names=form.outputs,
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=_shapes(form, batch),
                verbose=False,
            )
        except Exception as error:  # What torch.export raises has no narrower base.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UnsupportedModel(f"{form.name}: cannot be exported: {reason}") from error
    assert program is not None
    model = program.model
    for value in list(model.graph.inputs):
        if not value.uses() and not value.is_graph_output():
            model.graph.inputs.remove(value)
    # The exporter notes source files and stack traces on every node.
    passes = Sequential(
        CommonSubexpressionEliminationPass(), RemoveUnusedNodesPass(), ClearMetadataAndDocStringPass()
    )
    passes(model)
    _agree_types(model.graph)
    return model


def _agree_types(graph: ir.Graph) -> None:
    """Let RMS norms of one type with a scale of another run in the wider, and cast what they make.

    The operator allows such a pair; ONNX's own shape inference gives it the wrong type.
    """
    for node in list(graph):
        if node.op_type != "RMSNormalization":
            continue
        (hidden, scale), (made,) = node.inputs, node.outputs
        assert hidden is not None
        assert scale is not None
        narrow, wide = made.dtype, hidden.dtype
        if wide == scale.dtype or wide is None or narrow is None:
            continue
        widen = ir.node("Cast", [scale], {"to": wide.value})
        narrowed = ir.node("Cast", [made], {"to": narrow.value})
        widen.outputs[0].dtype, widen.outputs[0].shape = wide, scale.shape
        narrowed.outputs[0].dtype, narrowed.outputs[0].shape = narrow, made.shape
        graph.insert_before(node, widen)
        graph.insert_after(node, narrowed)
        for user, index in list(made.uses()):
            if user is not narrowed:
                user.replace_input_with(index, narrowed.outputs[0])
        if made.is_graph_output():
            graph.outputs[list(graph.outputs).index(made)] = narrowed.outputs[0]
            narrowed.outputs[0].name, made.name = made.name, f"{made.name}_wide"
        node.replace_input_with(1, widen.outputs[0])
        made.dtype = wide


def specs(values: list[ir.Value]) -> list[TensorSpec]:
    """Return how inputs or outputs of a graph are called."""
    return [_spec(value) for value in values]


def _spec(value: ir.Value) -> TensorSpec:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    dtype = {"FLOAT": "float32", "FLOAT16": "float16", "INT64": "int64"}[value.dtype.name]
    assert dtype in get_args(DType)
    shape = [extent if isinstance(extent, int) else None for extent in value.shape]
    return TensorSpec(name=value.name, dtype=cast(DType, dtype), shape=shape)


def _shapes(form: ExportModule, batch: torch.export.Dim) -> tuple[object, ...]:
    return tuple({0: batch} if form.is_batched(name) else {} for name in form.inputs)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence notices of the exporter about itself: what it could not fold, what it deprecates."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
