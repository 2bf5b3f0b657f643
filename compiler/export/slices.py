"""Slices of concatenations rewritten as what they cut out.

    cat((a, b), dim)[first : last]  →  a or b, where the slice is exactly one of them

Where a model reuses the image's tokens of a sequence of image and text, nothing of the text is needed any more, and the
layers that make it drop out of the graph.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch.export import ExportedProgram

_ATEN = torch.ops.aten


def cut_concatenations(program: ExportedProgram) -> int:
    """Rewrite, in place, the slices that are one part of a concatenation; return their number."""
    graph = program.graph_module.graph
    count = 0
    for node in list(graph.nodes):
        part = _part(node)
        if part is not None:
            node.replace_all_uses_with(part)
            graph.erase_node(node)
            count += 1
    if count:
        graph.eliminate_dead_code()
        program.graph_module.recompile()
    return count


def _part(node: Any) -> Any:
    """Return the part of a concatenation that `node` cuts out; None where it does something else."""
    if node.op != "call_function" or node.target is not _ATEN.slice.Tensor or len(node.args) != 4:
        return None
    joined, dim, first, last = node.args
    if joined.target is not _ATEN.cat.default:
        return None
    parts, *axis = joined.args
    if (axis or [0])[0] % joined.meta["val"].ndim != dim % joined.meta["val"].ndim:
        return None
    sizes = [part.meta["val"].shape[dim] for part in parts]
    if not all(isinstance(size, int) for size in (*sizes, first, last)):
        return None
    ends = list(accumulate(sizes))
    for part, size, end in zip(parts, sizes, ends, strict=True):
        if (first, min(last, ends[-1])) == (end - size, end):
            return part
    return None
