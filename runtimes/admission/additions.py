"""Additions of format 1.1 that a policy uses, against those that a runtime runs: every other one is refused.

A field that nobody here knows how to run might say that this run is not what was calibrated, so it is never ignored,
and no flag lets it pass.
"""

from collections.abc import Collection
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


def check_additions(document: PolicyDocument, where: str, runs: Collection[str]) -> None:
    """Refuse a policy that uses more of format 1.1 than is known here.

    Args:
        document: the policy.
        where: what runs it, as the error says it.
        runs: the additions that it runs, by their names in `budc.schema.additions`.

    Raises:
        UnsupportedModel: a policy for a network without a pipeline.
        UnsupportedVersion: another addition, which the error names.
    """
    for name in additions(document):
        if name in runs:
            continue
        if name == NETWORK:
            document.pipeline()
        target = f", {document.target.name}" if name == TARGET and document.target else ""
        raise UnsupportedVersion(
            f"{document.name} has {_WHAT[name]} ({name}{target}), which {where} does not support",
            remedy="use what the policy was made for, or a policy without this",
        )
