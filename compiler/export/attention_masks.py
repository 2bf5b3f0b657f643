"""Attention masks with a row for each query.

    scaled_dot_product_attention(q, k, v, mask (…, 1, keys))  →  the same with mask (…, queries, keys)

PyTorch takes one row for all queries, as masks of padding are. ONNX's operator Attention is run with a row for each.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram

_ATEN = torch.ops.aten


def expand_masks(program: ExportedProgram) -> int:
    """Expand, in place, the masks of all attentions that have one row for several queries; return their number."""
    graph = program.graph_module.graph
    count = 0
    for node in list(graph.nodes):
        if node.op != "call_function" or node.target is not _ATEN.scaled_dot_product_attention.default:
            continue
        query, mask = node.args[0], (*node.args, *[None] * 4)[3]
        queries = query.meta["val"].shape[-2]
        if mask is None or mask.meta["val"].shape[-2] == queries:
            continue
        sizes: list[Any] = [-1] * mask.meta["val"].ndim
        sizes[-2] = queries
        with graph.inserting_before(node):
            expanded = graph.call_function(_ATEN.expand.default, (mask, sizes))
        expanded.meta["val"] = _ATEN.expand.default(mask.meta["val"], sizes)
        node.replace_input_with(mask, expanded)
        count += 1
    if count:
        program.graph_module.recompile()
    return count
