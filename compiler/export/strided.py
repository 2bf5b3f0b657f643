"""Strided writes rewritten as a stack.

    out = torch.empty_like(x); out[..., 0::2] = a; out[..., 1::2] = b        →  stack((a, b), -1).flatten(-2)

Rotary embeddings in diffusers write so. The exporter would turn that into scatters over indices computed at run time,
between two transpositions of the whole tensor. A stack gives the same values faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph
from torch.fx.node import map_arg

_ATEN = torch.ops.aten


def stack_strided_writes(program: ExportedProgram) -> int:
    """Rewrite, in place, all tensors that are created empty and filled by interleaved slices; return their number."""
    graph = program.graph_module.graph
    count = 0
    for base in list(graph.nodes):
        if base.op == "call_function" and base.target is _ATEN.empty_like.default:
            count += _rewrite(graph, base)
    if count:
        program.graph_module.recompile()
    return count


def _rewrite(graph: Graph, base: Any) -> bool:
    """Replace `base` if the slices 0::n, 1::n, … of one dimension fill it before it is read; return whether they do."""
    slices = [user for user in base.users if _is_write(user)]
    if not slices or list(base.users)[: len(slices)] != slices:
        return False
    writes = [next(iter(node.users)) for node in slices]
    target = base.meta["val"]
    _, dim, _, _, step = slices[0].args
    expected = [(base, dim, offset, step) for offset in range(step)]
    reach_end = all(node.args[3] >= target.shape[dim] for node in slices)
    if [(*node.args[:3], node.args[4]) for node in slices] != expected or not reach_end:
        return False
    if target.shape[dim] % step:
        return False
    dim = dim % target.ndim
    with graph.inserting_after(writes[-1]):
        stacked = graph.call_function(_ATEN.stack.default, ([write.args[1] for write in writes], dim + 1))
    with graph.inserting_after(stacked):
        flat = graph.call_function(_ATEN.flatten.using_ints, (stacked, dim, dim + 1))
    with graph.inserting_after(flat):
        # A write casts to the type of its target.
        cast = graph.call_function(_ATEN.to.dtype, (flat, target.dtype))
    for node in (stacked, flat, cast):
        call: Any = node.target
        node.meta["val"] = call(*map_arg(node.args, lambda argument: argument.meta["val"]))
    base.replace_all_uses_with(cast, delete_user_cb=lambda user: user not in slices)
    for node in (*reversed(writes), *slices, base):
        graph.erase_node(node)
    return True


def _is_write(node: Any) -> bool:
    """Whether `node` is a slice with a fixed stride that is never read, and written once by a tensor of its shape."""
    if node.target is not _ATEN.slice.Tensor or len(node.args) != 5 or len(node.users) != 1:
        return False
    (write,) = node.users
    return bool(
        isinstance(node.args[4], int)
        and write.target is _ATEN.copy_.default
        and write.args[0] is node
        and not write.users
        and write.args[1].meta["val"].shape == node.meta["val"].shape
    )
