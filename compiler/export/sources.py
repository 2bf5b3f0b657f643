"""Graph sources: a module and example inputs for each graph of an export, and the files that the graph goes to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from budc.runtimes.exported.signatures import INPUTS, OUTPUTS, GraphName, signature_name

EXAMPLES = 3
"""Samples in the example inputs of a source: two are traced, one and all three are compared."""

GRAPH_FILES: Mapping[GraphName, str] = {
    "compute": "transformer/compute.onnx",
    "reuse": "transformer/reuse.onnx",
    "reuse_terms": "transformer/reuse_terms.onnx",
    "text_encoder": "text_encoder/model.onnx",
    "vae_decoder": "vae_decoder/model.onnx",
}
WEIGHT_FILES: Mapping[GraphName, str] = {
    "compute": "transformer/weights.onnx.data",
    "reuse": "transformer/weights.onnx.data",
    "reuse_terms": "transformer/weights.onnx.data",
    "text_encoder": "text_encoder/model.onnx.data",
    "vae_decoder": "vae_decoder/model.onnx.data",
}
"""Where the weights of each graph are written; the denoiser's graphs share one file."""


def files_of(name: GraphName) -> tuple[str, str]:
    """Return the files of a graph and of its weights; those of a second denoiser have a folder of their own."""
    like = signature_name(name)
    files = GRAPH_FILES[like], WEIGHT_FILES[like]
    if like == name:
        return files
    graph, weights = (file.replace("transformer/", "transformer_2/") for file in files)
    return graph, weights


UNUSED_INPUT = torch.zeros(())
"""Takes the place of an input that a module does not use. It has no batch whose size a graph could take from it."""
_WITHOUT_BATCH = frozenset({"coefficients"})


@dataclass(frozen=True)
class GraphSource:
    """What a graph is exported from."""

    name: GraphName
    module: nn.Module
    inputs: Mapping[str, Tensor]
    """Example inputs by the names in `INPUTS`, `EXAMPLES` samples each. The graph leaves out those that the module
    does not use."""
    returned: tuple[str, ...] = ()
    """Names of what the module returns; default all of `OUTPUTS`. A text encoder says which it has."""

    def __post_init__(self) -> None:
        assert tuple(self.inputs) == INPUTS[signature_name(self.name)]
        assert self.returned or self.name != "text_encoder"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what the module returns, in order."""
        return self.returned or OUTPUTS[signature_name(self.name)]

    def batch(self, size: int) -> dict[str, Tensor]:
        """Return the inputs of the first `size` samples."""
        return {name: value[:size] if self.is_batched(name) else value for name, value in self.inputs.items()}

    def is_batched(self, name: str) -> bool:
        """Whether the first dimension of an input is the batch."""
        return name not in _WITHOUT_BATCH and self.inputs[name].ndim > 0

    def run(self, size: int) -> tuple[Tensor, ...]:
        """Return the module's outputs for the first `size` samples."""
        with torch.no_grad():
            outputs = self.module(*self.batch(size).values())
        return outputs if isinstance(outputs, tuple) else (outputs,)
