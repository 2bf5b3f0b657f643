"""Additions of format 1.1: who runs which. Every other one is refused.

A field that nobody here knows how to run might say that this run is not what was calibrated, so it is never ignored,
and no flag lets it pass.
"""

from collections.abc import Collection, Mapping
from typing import Final

from budc.schema.additions import (
    EVALUATION,
    FURTHER_SHAPES,
    IMAGES,
    NEGATIVE_PROMPT,
    NETWORK,
    NETWORK_CONFIG,
    OWN_PREDICTORS,
    OWN_SIGMAS,
    QUANTIZATION,
    SCALED_ADAPTERS,
    TARGET,
    TRUNK_OUTPUT,
    additions,
)
from budc.schema.errors import UnsupportedVersion
from budc.schema.policy import PolicyDocument

_WHAT: Final = {
    NETWORK_CONFIG: "the settings of its networks",
    QUANTIZATION: "quantised networks",
    SCALED_ADAPTERS: "adapters that must be loaded at their scales",
    NEGATIVE_PROMPT: "a negative prompt that must be checked",
    FURTHER_SHAPES: "several shapes",
    OWN_SIGMAS: "sigmas of their own for some shapes",
    OWN_PREDICTORS: "predictors of their own for some shapes",
    IMAGES: "images that condition a sample",
    TARGET: "another engine as its target",
    TRUNK_OUTPUT: "the payload trunk-output",
    EVALUATION: "figures of an evaluation",
}

APPLY: Final = "budc.apply"
ONNX_RUNTIME: Final = "the ONNX runtime"
COMFYUI: Final = "ComfyUI"
BIND: Final = "budc bind"
REPLAY: Final = "a replay"
DEPLOYMENT: Final = "a measurement of what an engine loses"
EVALUATE: Final = "budc evaluate"
TRANSFER: Final = "budc transfer"
RUN_NETWORK: Final = "budc.run"

_EXPORTED: Final = frozenset({NETWORK_CONFIG, NEGATIVE_PROMPT, FURTHER_SHAPES, EVALUATION})
_ON_PIPELINES: Final = frozenset(
    {*_EXPORTED, QUANTIZATION, SCALED_ADAPTERS, IMAGES, OWN_SIGMAS, OWN_PREDICTORS}
)
_OF_ONE_SHAPE: Final = _ON_PIPELINES - {FURTHER_SHAPES, OWN_SIGMAS, OWN_PREDICTORS}

RUNS: Final[Mapping[str, frozenset[str]]] = {
    APPLY: _ON_PIPELINES,
    ONNX_RUNTIME: _EXPORTED,
    COMFYUI: _ON_PIPELINES - {QUANTIZATION},
    BIND: _EXPORTED,
    # Only the shape that was searched on is measured.
    REPLAY: _ON_PIPELINES | {TARGET, TRUNK_OUTPUT},
    DEPLOYMENT: _ON_PIPELINES - {IMAGES, SCALED_ADAPTERS} | {TARGET, TRUNK_OUTPUT},
    # At each size with the sigmas and predictors that it has there.
    EVALUATE: _ON_PIPELINES,
    TRANSFER: _OF_ONE_SHAPE,
    RUN_NETWORK: frozenset({NETWORK, EVALUATION}),
}
"""What runs a policy, as errors call it → the additions that it runs, by their names in `budc.schema.additions`."""

_REMEDIES: Final = {
    SCALED_ADAPTERS: "exports hold no adapters: fuse them into the weights, save the pipeline, `budc transfer` the "
    "policy to that folder, and export it",
    TARGET: "write it for its engine: budc export config; or compile one without --for",
}
_REMEDY: Final = "use what the policy was made for, or a policy without this"


def check_additions(document: PolicyDocument, where: str, without: Collection[str] = ()) -> None:
    """Refuse a policy that uses more of format 1.1 than is known here.

    Args:
        document: the policy.
        where: what runs it, one of `RUNS`.
        without: additions that it cannot run this time.

    Raises:
        UnsupportedModel: a policy for a network without a pipeline.
        UnsupportedVersion: another addition, which the error names.
    """
    for name in additions(document):
        if name in RUNS[where] and name not in without:
            continue
        if name == NETWORK:
            document.pipeline()
        target = f", {document.target.name}" if name == TARGET and document.target else ""
        raise UnsupportedVersion(
            f"{document.name} has {_WHAT[name]} ({name}{target}), which {where} does not support",
            remedy=_REMEDIES.get(name, _REMEDY),
        )
