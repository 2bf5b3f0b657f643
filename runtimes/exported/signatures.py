"""Signatures of the graphs of an export: the names, types and shapes of their inputs and outputs."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from budc.schema.fields import Name, Path, Positive

TERMS: Final = 3
"""Residuals that `reuse_terms` combines; a policy with fewer terms gives the others the coefficient 0."""

GraphName = Literal[
    "compute", "reuse", "reuse_terms", "text_encoder", "vae_decoder", "compute_2", "reuse_2", "reuse_terms_2"
]
DenoiserGraph = Literal["compute", "reuse", "reuse_terms"]
DType = Literal["float32", "float16", "int64"]

CONDITIONS: Final = ("encoder_hidden_states", "pooled_projections", "encoder_attention_mask")
"""What the text encoders return and the denoiser takes; the second only where a model pools, the third, 1 for tokens
and 0 for padding, only where it masks padding."""
_LATENTS = ("hidden_states", "timestep", *CONDITIONS)
_RESIDUALS = tuple(f"residual_{index}" for index in range(TERMS))

INPUTS: Final[Mapping[GraphName, tuple[str, ...]]] = {
    "compute": _LATENTS,
    "reuse": (*_LATENTS, "residual"),
    "reuse_terms": (*_LATENTS, *_RESIDUALS, "coefficients"),
    "text_encoder": ("input_ids", "attention_mask", "pooled_input_ids"),
    "vae_decoder": ("latents",),
}
"""The inputs of each graph, in this order; a graph leaves out what its model does not use. Those of a second denoiser
are those of the first (`denoiser_graph`)."""

OUTPUTS: Final[Mapping[GraphName, tuple[str, ...]]] = {
    "compute": ("velocity", "residual"),
    "reuse": ("velocity",),
    "reuse_terms": ("velocity",),
    "text_encoder": CONDITIONS,
    "vae_decoder": ("video",),
}
"""The outputs of each graph, in this order; text encoders leave out what their model does not need."""


SECOND: Final[Mapping[GraphName, DenoiserGraph]] = {
    "compute_2": "compute",
    "reuse_2": "reuse",
    "reuse_terms_2": "reuse_terms",
}
"""The graphs of a second denoiser, which only some models have, and those of the first that they are like."""


def denoiser_graph(name: DenoiserGraph, denoiser: int) -> GraphName:
    """Return the name of a graph of a denoiser, 0 for the first."""
    return next(second for second, first in SECOND.items() if first == name) if denoiser else name


def signature_name(name: GraphName) -> GraphName:
    """Return the graph in `INPUTS` and `OUTPUTS` that has the signature of `name`."""
    return SECOND.get(name, name)


class Strict(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A part of the manifest: immutable, no unknown fields, camelCase in JSON."""


class TensorSpec(Strict, frozen=True, kw_only=True):
    """One input or output of a graph."""

    name: Name
    dtype: DType
    shape: Annotated[Sequence[Positive | None], Meta(min_length=1, max_length=8)]
    """The extents; null is the batch, which is free."""


class Graph(Strict, frozen=True, kw_only=True):
    """One graph: its file and its signature."""

    file: Path
    inputs: Annotated[Sequence[TensorSpec], Meta(min_length=1, max_length=16)]
    outputs: Annotated[Sequence[TensorSpec], Meta(min_length=1, max_length=16)]


def check_signature(name: GraphName, graph: Graph) -> None:
    """Check the names of a graph's inputs and outputs against `INPUTS` and `OUTPUTS`.

    Raises:
        ValueError: a name is unknown, repeated, in another order, or an output is missing.
    """
    name = signature_name(name)
    outputs, expected = [spec.name for spec in graph.outputs], list(OUTPUTS[name])
    needed = expected[:1] if name == "text_encoder" else expected
    if outputs != [each for each in expected if each in outputs] or not set(needed) <= set(outputs):
        raise ValueError(f"{graph.file} returns {outputs}, expected {expected}")
    inputs = [spec.name for spec in graph.inputs]
    if inputs != [expected_name for expected_name in INPUTS[name] if expected_name in inputs]:
        raise ValueError(f"{graph.file} takes {inputs}, expected {list(INPUTS[name])}")
