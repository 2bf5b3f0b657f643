"""Products of complex numbers rewritten with real ones.

    view_as_real(view_as_complex(x) * view_as_complex(y))  →  stack((a c - b d, a d + b c), -1)

where x = (a, b) and y = (c, d). Rotary embeddings in some transformers of diffusers multiply so. ONNX has no complex
numbers: every complex tensor of the graph becomes a real one with a last dimension of two, real and imaginary part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph
from torch.fx.node import map_arg

_ATEN = torch.ops.aten


def real_products(program: ExportedProgram) -> int:
    """Rewrite, in place, the complex tensors of a program as real ones; return their number.

    Operations other than a product, a new dimension and the two views stay, for the exporter to refuse.
    """
    graph = program.graph_module.graph
    pairs: dict[Any, Any] = {}
    for node in list(graph.nodes):
        rewrite = _RULES.get(node.target) if node.op == "call_function" else None
        if rewrite is not None:
            rewrite(graph, node, pairs)
    for node in reversed(pairs):
        if not node.users:
            graph.erase_node(node)
    if pairs:
        program.graph_module.recompile()
    return len(pairs)


def _view_as_complex(_graph: Graph, node: Any, pairs: dict[Any, Any]) -> None:
    pairs[node] = node.args[0]


def _view_as_real(_graph: Graph, node: Any, pairs: dict[Any, Any]) -> None:
    if node.args[0] in pairs:
        node.replace_all_uses_with(pairs[node.args[0]])
        # Erased with the complex numbers that it read.
        pairs[node] = None


def _unsqueeze(graph: Graph, node: Any, pairs: dict[Any, Any]) -> None:
    of, dim = node.args
    if of in pairs:
        dim = dim if dim >= 0 else dim + of.meta["val"].ndim + 1
        pairs[node] = _call(graph, node, _ATEN.unsqueeze.default, pairs[of], dim)


def _mul(graph: Graph, node: Any, pairs: dict[Any, Any]) -> None:
    x, y = node.args
    if x not in pairs or y not in pairs:
        return

    def call(target: Any, *args: Any) -> Any:
        return _call(graph, node, target, *args)

    (a, b), (c, d) = (
        [call(_ATEN.select.int, pairs[factor], -1, part) for part in (0, 1)] for factor in (x, y)
    )
    multiply, add, subtract = _ATEN.mul.Tensor, _ATEN.add.Tensor, _ATEN.sub.Tensor
    real = call(subtract, call(multiply, a, c), call(multiply, b, d))
    imaginary = call(add, call(multiply, a, d), call(multiply, b, c))
    pairs[node] = call(_ATEN.stack.default, [real, imaginary], -1)


_RULES: dict[Any, Callable[[Graph, Any, dict[Any, Any]], None]] = {
    _ATEN.view_as_complex.default: _view_as_complex,
    _ATEN.view_as_real.default: _view_as_real,
    _ATEN.unsqueeze.default: _unsqueeze,
    _ATEN.mul.Tensor: _mul,
}


def _call(graph: Graph, before: Any, target: Any, *args: Any) -> Any:
    """Insert a call before a node, with the value that shape inference needs."""
    with graph.inserting_before(before):
        node = graph.call_function(target, args)
    node.meta["val"] = target(*map_arg(args, lambda argument: argument.meta["val"]))
    return node
