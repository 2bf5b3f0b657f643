"""The update between two forwards as one small graph: guidance, solver, next inputs.

    state (R, n)                 x and what the solver remembers, n values of the whole batch
    velocities (S · G · B, ...)  of G guidance branches in S slots: slot after slot, in each branch after branch
    until (1,)                   the step that this update takes the state past, known on the device
      → state', until', hidden_states (G · B, ...) and timestep (G · B,) of the next forward

Matrices and timesteps are constants of the graph, so that a run copies nothing between host and device. Guidance is one
more factor in the matrices: uncond + g (cond - uncond) is linear too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from budc.runtimes.onnxruntime.fused_steps import FusedSteps
from budc.runtimes.onnxruntime.provider import encoded

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


def update_model(
    stretches: FusedSteps,
    timesteps: Sequence[float],
    branches: int,
    latents: Sequence[int],
    dtype: str,
) -> bytes:
    """Return the graph as the bytes of an ONNX model.

    Args:
        stretches: the matrices, and where one update ends and the next one does.
        timesteps: of all steps.
        branches: guidance branches in a forward.
        latents: shape of the samples, (B, ...).
        dtype: "float32" or "float16", of velocities and hidden states; the state is float32.
    """
    steps, rows, known = stretches.matrices.shape
    columns, ends = known - rows, list(stretches.ends.values())
    following = np.arange(steps)
    following[ends[:-1]] = ends[1:]
    batch, *sample = latents
    count = int(np.prod(latents))
    constants: dict[str, NDArray[np.generic]] = {
        "matrices": stretches.matrices.astype(np.float32),
        "following": following.astype(np.int64),
        # After the last step there is no next forward; its timestep is any number.
        "timesteps": np.asarray([*timesteps[1:], 0.0], np.float32),
        "first": np.array([0], np.int64),
        "flat": np.array([columns, count], np.int64),
        "square": np.array([rows, known], np.int64),
        "samples": np.array(latents, np.int64),
        "forwards": np.array([branches * batch], np.int64),
    }
    nodes = [
        _node("Gather", ["matrices", "until"], "gathered"),
        _node("Reshape", ["gathered", "square"], "matrix"),
        _node("Cast", ["velocities"], "wide", to=TensorProto.FLOAT),
        _node("Reshape", ["wide", "flat"], "flattened"),
        _node("Concat", ["state", "flattened"], "known", axis=0),
        _node("MatMul", ["matrix", "known"], "state_next"),
        _node("Gather", ["state_next", "first"], "moved"),
        _node("Reshape", ["moved", "samples"], "sample"),
        _node("Cast", ["sample"], "narrow", to=_TYPES[dtype]),
        _node("Concat", ["narrow"] * branches, "hidden_states", axis=0),
        _node("Gather", ["following", "until"], "until_next"),
        _node("Gather", ["timesteps", "until"], "time"),
        _node("Expand", ["time", "forwards"], "timestep"),
    ]
    inputs = [
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [rows, count]),
        helper.make_tensor_value_info("velocities", _TYPES[dtype], [columns * batch, *sample]),
        helper.make_tensor_value_info("until", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("state_next", TensorProto.FLOAT, [rows, count]),
        helper.make_tensor_value_info("until_next", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("hidden_states", _TYPES[dtype], [branches * batch, *sample]),
        helper.make_tensor_value_info("timestep", TensorProto.FLOAT, [branches * batch]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return encoded(helper.make_graph(nodes, "update", inputs, outputs, initializers))


def _node(kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)
