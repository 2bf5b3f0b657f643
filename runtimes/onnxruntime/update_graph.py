"""The update from one forward to the next as one small graph: guidance, solver, and the inputs of the next forward.

    state (R, n)                 the latents and the solver's memory, each as one row of n values for the whole batch
    velocities (S · G · B, ...)  of S slots, in each slot of G guidance branches, in each branch of B samples
    until (1,)                   the last step of the interval that this update takes the state past
      → state_next, until_next, and of the next forward hidden_states (G · B, ...) and timestep (G · B,)

Matrices and timesteps are constants of the graph, and `until` stays on the device, so that a run copies nothing between
host and device. Guidance is linear, uncond + g (cond - uncond), and so is part of the matrices; where it is not, nodes
of its own come before them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from budc.runtimes.onnxruntime.fused_steps import FusedSteps
from budc.runtimes.onnxruntime.provider import model_bytes

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


def update_model(
    fused: FusedSteps,
    timesteps: Sequence[float],
    branches: int,
    latents: Sequence[int],
    dtype: str,
) -> bytes:
    """Return the graph as the bytes of an ONNX model.

    Args:
        fused: the matrix of every step, and the intervals that the updates take.
        timesteps: one a step.
        branches: number of guidance branches.
        latents: shape of the latents, (B, ...).
        dtype: "float32" or "float16", of velocities and hidden states; the state is float32.
    """
    _, rows, _ = fused.matrices.shape
    batch, *sample = latents
    elements = int(np.prod(latents))
    nodes = [
        _node("Gather", ["matrices", "until"], "gathered"),
        _node("Reshape", ["gathered", "matrix_shape"], "matrix"),
        _node("Cast", ["velocities"], "velocities_float32", to=TensorProto.FLOAT),
        _node("Reshape", ["velocities_float32", "velocity_rows"], "flattened"),
        *(_rescaled() if fused.branches is not None else ()),
        _node("Concat", ["state", "flattened" if fused.branches is None else "guided"], "stacked", axis=0),
        _node("MatMul", ["matrix", "stacked"], "state_next"),
        _node("Gather", ["state_next", "zero"], "latents_row"),
        _node("Reshape", ["latents_row", "latents_shape"], "latents_float32"),
        _node("Cast", ["latents_float32"], "latents", to=_TYPES[dtype]),
        _node("Concat", ["latents"] * branches, "hidden_states", axis=0),
        _node("Gather", ["next_end", "until"], "until_next"),
        _node("Gather", ["timesteps", "until"], "next_timestep"),
        _node("Expand", ["next_timestep", "samples"], "timestep"),
    ]
    inputs = [
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [rows, elements]),
        helper.make_tensor_value_info("velocities", _TYPES[dtype], [fused.velocities * batch, *sample]),
        helper.make_tensor_value_info("until", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("state_next", TensorProto.FLOAT, [rows, elements]),
        helper.make_tensor_value_info("until_next", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("hidden_states", _TYPES[dtype], [branches * batch, *sample]),
        helper.make_tensor_value_info("timestep", TensorProto.FLOAT, [branches * batch]),
    ]
    constants = _constants(fused, timesteps, branches, latents)
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return model_bytes(helper.make_graph(nodes, "update", inputs, outputs, initializers))


def _rescaled() -> list[NodeProto]:
    """Return the nodes from flattened velocities (V, n) to the guided one (1, n), scaled to the norm of the conditional
    one cell by cell.
    """
    return [
        _node("Gather", ["branches", "until"], "gathered_branches"),
        _node("Reshape", ["gathered_branches", "branches_shape"], "branches_matrix"),
        _node("MatMul", ["branches_matrix", "flattened"], "branch_velocities"),
        _node("Gather", ["guidance", "until"], "weights"),
        _node("MatMul", ["weights", "branch_velocities"], "combined"),
        _node("Gather", ["branch_velocities", "zero"], "conditional"),
        *(_node("Reshape", [name, "cells_shape"], f"{name}_cells") for name in ("combined", "conditional")),
        *(
            _node("ReduceL2", [f"{name}_cells", "last_axis"], f"{name}_norm", keepdims=1)
            for name in ("combined", "conditional")
        ),
        _node("Div", ["conditional_norm", "combined_norm"], "scale"),
        _node("Mul", ["combined_cells", "scale"], "scaled_cells"),
        _node("Reshape", ["scaled_cells", "guided_shape"], "guided"),
    ]


def _constants(
    fused: FusedSteps, timesteps: Sequence[float], branches: int, latents: Sequence[int]
) -> dict[str, NDArray[np.generic]]:
    steps, rows, columns = fused.matrices.shape
    elements = int(np.prod(latents))
    ends = list(fused.ends.values())
    next_end = np.arange(steps)
    next_end[ends[:-1]] = ends[1:]
    constants: dict[str, NDArray[np.generic]] = {
        "matrices": fused.matrices.astype(np.float32),
        "next_end": next_end.astype(np.int64),
        # No forward follows the last step, so any number will do there.
        "timesteps": np.asarray([*timesteps[1:], 0.0], np.float32),
        "zero": np.array([0], np.int64),
        "velocity_rows": np.array([fused.velocities, elements], np.int64),
        "matrix_shape": np.array([rows, columns], np.int64),
        "latents_shape": np.array(latents, np.int64),
        "samples": np.array([branches * latents[0]], np.int64),
    }
    if fused.branches is not None and fused.guidance is not None:
        constants |= {
            "branches": fused.branches.astype(np.float32),
            "guidance": fused.guidance.astype(np.float32),
            "branches_shape": np.array(fused.branches.shape[1:], np.int64),
            "cells_shape": np.array([-1, latents[-1]], np.int64),
            "last_axis": np.array([-1], np.int64),
            "guided_shape": np.array([1, elements], np.int64),
        }
    return constants


def _node(operator: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(operator, list(inputs), list(outputs), **attributes)
