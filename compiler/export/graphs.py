"""ONNX graphs of modules by torch's dynamo exporter, without traces of the machine that made them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast, get_args
from unittest.mock import patch

import onnx_ir as ir
import torch
from onnx_ir.passes import Sequential
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    RemoveUnusedNodesPass,
)

from budc.compiler.export.attention_masks import expand_masks
from budc.compiler.export.complex_products import real_products
from budc.compiler.export.slices import cut_concatenations
from budc.compiler.export.sources import GraphSource
from budc.compiler.export.strided import stack_strided_writes
from budc.runtimes.exported.signatures import INPUTS, DType, TensorSpec, signature_name
from budc.schema.errors import UnsupportedModel
from budc.schema.foreign_error import reason_of

OPSET = 23
"""The first opset with the operators Attention and RMSNormalization, for which runtimes have fused kernels."""

_TRACED_BATCH = 2
"""The exporter would take a batch of one for a constant."""
_MAX_TRACED_BATCH = 63
"""From 64 samples on some layers of diffusers choose another memory layout, which the trace cannot express. Graphs have
no memory layout, so that the exported graph has no such limit."""


def to_graph(source: GraphSource) -> ir.Model:
    """Export a module with a dynamic batch; inputs that it does not use are left out.

    Raises:
        UnsupportedModel: the exporter cannot express the module.
    """
    batch = torch.export.Dim("batch", min=1, max=_MAX_TRACED_BATCH)
    with torch.no_grad(), _quiet():
        try:
            with _without_autocast():
                traced = torch.export.export(
                    source.module,
                    tuple(source.batch(_TRACED_BATCH).values()),
                    dynamic_shapes=_shapes(source, batch),
                )
            stack_strided_writes(traced)
            real_products(traced)
            cut_concatenations(traced)
            expand_masks(traced)
            program = torch.onnx.export(
                traced,
                input_names=INPUTS[signature_name(source.name)],
                output_names=source.outputs,
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=_shapes(source, batch),
                verbose=False,
            )
        except Exception as error:  # torch.export raises nothing narrower.
            raise UnsupportedModel(f"{source.name}: cannot be exported: {reason_of(error)}") from error
    assert program is not None
    model = program.model
    for value in list(model.graph.inputs):
        if not value.uses() and not value.is_graph_output():
            model.graph.inputs.remove(value)
    # The exporter writes source files and stack traces into the metadata of every node.
    passes = Sequential(
        CommonSubexpressionEliminationPass(), RemoveUnusedNodesPass(), ClearMetadataAndDocStringPass()
    )
    passes(model)
    _unify_norm_types(model.graph)
    return model


def _unify_norm_types(graph: ir.Graph) -> None:
    """Let RMS norms whose input and scale differ in type run in the input's type, and cast their output.

    The operator allows two types, but ONNX's own shape inference then gives the output the wrong one.
    """
    for node in list(graph):
        if node.op_type != "RMSNormalization":
            continue
        (hidden, scale), (output,) = node.inputs, node.outputs
        assert hidden is not None
        assert scale is not None
        narrow, wide = output.dtype, hidden.dtype
        if wide == scale.dtype or wide is None or narrow is None:
            continue
        widen = ir.node("Cast", [scale], {"to": wide.value})
        narrowed = ir.node("Cast", [output], {"to": narrow.value})
        widen.outputs[0].dtype, widen.outputs[0].shape = wide, scale.shape
        narrowed.outputs[0].dtype, narrowed.outputs[0].shape = narrow, output.shape
        graph.insert_before(node, widen)
        graph.insert_after(node, narrowed)
        for user, index in list(output.uses()):
            if user is not narrowed:
                user.replace_input_with(index, narrowed.outputs[0])
        if output.is_graph_output():
            graph.outputs[list(graph.outputs).index(output)] = narrowed.outputs[0]
            narrowed.outputs[0].name, output.name = output.name, f"{output.name}_wide"
        node.replace_input_with(1, widen.outputs[0])
        output.dtype = wide


def tensor_specs(values: list[ir.Value]) -> list[TensorSpec]:
    """Return name, type and shape of inputs or outputs of a graph."""
    return [_spec(value) for value in values]


def _spec(value: ir.Value) -> TensorSpec:
    assert value.name is not None
    assert value.dtype is not None
    assert value.shape is not None
    dtype = {"FLOAT": "float32", "FLOAT16": "float16", "INT64": "int64"}[value.dtype.name]
    assert dtype in get_args(DType)
    shape = [extent if isinstance(extent, int) else None for extent in value.shape]
    return TensorSpec(name=value.name, dtype=cast(DType, dtype), shape=shape)


def _shapes(source: GraphSource, batch: torch.export.Dim) -> tuple[object, ...]:
    return tuple({0: batch} if source.is_batched(name) else {} for name in source.inputs)


def _without_autocast() -> AbstractContextManager[object]:
    """Let modules that turn autocast off do nothing instead: it is off, and a trace would hide what is within."""
    return patch.object(torch.amp, "autocast", lambda *_, **__: nullcontext())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says about itself: constants that it could not fold, deprecations."""
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
