"""The update between two forwards as one small graph: guidance, scheduler step, next inputs.

    state (R, n)                 x and what the solver remembers, n values of the whole batch
    velocity (G · B, ...)        of G guidance branches, one after the other
    step (1,)                    where the run is, counted on the device
      → state', step', hidden_states (G · B, ...) and timestep (G · B,) of the next forward

The solver's matrices and all timesteps are constants of the graph, so that a step copies nothing between
host and device. Guidance is one more factor in the matrices: uncond + g (cond - uncond) is linear too.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from budc.runtimes.ort.provider import encoded
from budc.runtimes.solvers import solver_matrices
from budc.schema.policy import SamplerBinding

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


def state_rows(sampler: SamplerBinding) -> int:
    """Return R: how many tensors the size of the latents a sampler remembers, the latents included."""
    return int(solver_matrices(sampler).shape[1])


def update_model(
    sampler: SamplerBinding, weights: Sequence[float], latents: Sequence[int], batch: int, dtype: str
) -> bytes:
    """Return the graph as the bytes of an ONNX model.

    Args:
        sampler: what to solve with.
        weights: of each guidance branch's velocity in the guided one, in the order of the batch.
        latents: shape of one sample.
        batch: samples.
        dtype: "float32" or "float16", of velocities and hidden states; the state is float32.

    Raises:
        UnsupportedModel: see `solver_matrices`.
    """
    matrices = solver_matrices(sampler)
    rows, branches = matrices.shape[1], len(weights)
    guided = np.concatenate([matrices[..., :-1], matrices[..., -1:] * np.asarray(weights)], axis=-1)
    # After the last step there is no next forward; its timestep is any number.
    timesteps = np.asarray([*sampler.timesteps, 0.0], np.float32)
    forward, count = [branches * batch, *latents], batch * int(np.prod(latents))
    constants: dict[str, NDArray[np.generic]] = {
        "matrices": guided.astype(np.float32),
        "timesteps": timesteps,
        "one": np.array([1], np.int64),
        "first": np.array([0], np.int64),
        "flat": np.array([branches, count], np.int64),
        "square": np.array([rows, rows + branches], np.int64),
        "samples": np.array([batch, *latents], np.int64),
        "forwards": np.array([branches * batch], np.int64),
    }
    nodes = [
        _node("Gather", ["matrices", "step"], "gathered"),
        _node("Reshape", ["gathered", "square"], "matrix"),
        _node("Cast", ["velocity"], "wide", to=TensorProto.FLOAT),
        _node("Reshape", ["wide", "flat"], "velocities"),
        _node("Concat", ["state", "velocities"], "known", axis=0),
        _node("MatMul", ["matrix", "known"], "state_next"),
        _node("Gather", ["state_next", "first"], "moved"),
        _node("Reshape", ["moved", "samples"], "sample"),
        _node("Cast", ["sample"], "narrow", to=_TYPES[dtype]),
        _node("Concat", ["narrow"] * branches, "hidden_states", axis=0),
        _node("Add", ["step", "one"], "step_next"),
        _node("Gather", ["timesteps", "step_next"], "time"),
        _node("Expand", ["time", "forwards"], "timestep"),
    ]
    inputs = [
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [rows, count]),
        helper.make_tensor_value_info("velocity", _TYPES[dtype], forward),
        helper.make_tensor_value_info("step", TensorProto.INT64, [1]),
    ]
    outputs = [
        helper.make_tensor_value_info("state_next", TensorProto.FLOAT, [rows, count]),
        helper.make_tensor_value_info("step_next", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("hidden_states", _TYPES[dtype], forward),
        helper.make_tensor_value_info("timestep", TensorProto.FLOAT, [branches * batch]),
    ]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    return encoded(helper.make_graph(nodes, "update", inputs, outputs, initializers))


def combination_model(terms: int, dtype: str, shape: Sequence[int]) -> bytes:
    """Return the graph of Σ_i coefficients[i] · term_i as bytes, added up in float32, newest first.

    For payloads that no exported graph combines; `shape` is that of each term and of the result, `combined`.
    """
    names = [f"term_{index}" for index in range(terms)]
    nodes = [_node("Split", ["coefficients"], *(f"c_{name}" for name in names), num_outputs=terms)]
    for name in names:
        nodes += [
            _node("Cast", [name], f"wide_{name}", to=TensorProto.FLOAT),
            _node("Mul", [f"wide_{name}", f"c_{name}"], f"part_{name}"),
        ]
    nodes += [
        _node("Sum", [f"part_{name}" for name in names], "sum"),
        _node("Cast", ["sum"], "combined", to=_TYPES[dtype]),
    ]
    inputs = [helper.make_tensor_value_info(name, _TYPES[dtype], list(shape)) for name in names]
    inputs.append(helper.make_tensor_value_info("coefficients", TensorProto.FLOAT, [terms]))
    outputs = [helper.make_tensor_value_info("combined", _TYPES[dtype], list(shape))]
    return encoded(helper.make_graph(nodes, "combination", inputs, outputs))


def _node(kind: str, inputs: Sequence[str], *outputs: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)
