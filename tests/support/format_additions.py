"""Documents with each of what format 1.1 added, made from one without."""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from budc.schema.policy import (
    AdapterRule,
    BranchPolicy,
    BranchWeight,
    ConditioningImage,
    FurtherShape,
    NegativePrompt,
    Policy,
    PolicyDocument,
    Quantization,
    ScaledAdapter,
    Target,
)

Change = Callable[[PolicyDocument], PolicyDocument]
DIGEST = "sha256:" + "0" * 64


def network(document: PolicyDocument, **fields: Any) -> PolicyDocument:
    """Return the document as one of a network without a pipeline."""
    model = replace(document.model, kind="network", profile=None, pipeline_class=None, **fields)
    return replace(document, model=model, shape=None)


def further(document: PolicyDocument, **fields: Any) -> PolicyDocument:
    shape = FurtherShape(height=32, width=32, frames=9, quality=document.quality, **fields)
    return replace(document, further_shapes=[shape])


def own_predictors(document: PolicyDocument) -> PolicyDocument:
    (branch,) = document.policy.branches
    rows = [[0.5] if row else [] for row in branch.predictor]
    return further(document, branches=[BranchPolicy.of(branch.names, rows)])


def evaluated(document: PolicyDocument) -> PolicyDocument:
    (metric,) = document.quality.metrics
    quality = replace(document.quality, metrics=[replace(metric, evaluation=DIGEST)])
    return replace(document, quality=quality, derived_from=DIGEST)


def adapted(document: PolicyDocument) -> PolicyDocument:
    adapter = ScaledAdapter(name="style", file="0" * 64, scale=0.75)
    rule = AdapterRule(rule="listed", scaled=[adapter])
    return replace(document, model=replace(document.model, adapters=rule))


def with_config(document: PolicyDocument, **settings: Any) -> PolicyDocument:
    denoisers = [replace(item, config=settings or {"num_layers": 2}) for item in document.model.denoisers]
    return replace(document, model=replace(document.model, denoisers=denoisers))


def quantized(document: PolicyDocument) -> PolicyDocument:
    quantization = Quantization(kind="fp8-storage", values=DIGEST)
    denoisers = [replace(item, quantization=quantization) for item in document.model.denoisers]
    return replace(document, model=replace(document.model, denoisers=denoisers))


def with_negative(document: PolicyDocument, text: str = "blurred") -> PolicyDocument:
    negative = NegativePrompt(rule="fixed", text=text)
    return replace(document, sampler=replace(document.sampler, negative_prompt=negative))


def runnable_network(document: PolicyDocument) -> PolicyDocument:
    """Return the document, of two branches, as one of a network with all that its owner needs to run it."""
    first, second = document.budget.branches
    scale = document.sampler.guidance
    weights = [BranchWeight(branch=first, weight=scale), BranchWeight(branch=second, weight=1 - scale)]
    denoisers = [replace(item, blocks="layers", guidance=weights) for item in document.model.denoisers]
    return network(document, denoisers=denoisers, latents=[4, 8, 8])


ADDED: dict[str, tuple[Change, tuple[str, ...]]] = {
    "network": (network, ("model.kind",)),
    "runnable-network": (runnable_network, ("model.kind",)),
    "network-by-tensor-root": (lambda d: network(d, variants=[]), ("model.kind",)),
    "network-config": (with_config, ("model.denoisers.config",)),
    "quantization": (quantized, ("model.denoisers.quantization",)),
    "adapters": (adapted, ("model.adapters.scaled",)),
    "negative-prompt": (with_negative, ("sampler.negativePrompt",)),
    "empty-negative-prompt": (lambda d: with_negative(d, ""), ("sampler.negativePrompt",)),
    "further-shapes": (further, ("furtherShapes",)),
    "own-schedule": (
        lambda d: further(d, sigmas=d.sampler.sigmas, timesteps=d.sampler.timesteps),
        ("furtherShapes", "furtherShapes.sigmas"),
    ),
    "own-predictors": (own_predictors, ("furtherShapes", "furtherShapes.branches")),
    "image": (lambda d: replace(d, images=[ConditioningImage(role="first-frame")]), ("images",)),
    "target": (lambda d: replace(d, target=Target(name="sglang")), ("target",)),
    "trunk-output": (
        lambda d: replace(d, policy=Policy(payload="trunk-output", branches=d.policy.branches)),
        ("policy.payload",),
    ),
    "evaluation": (evaluated, ("quality.metrics.evaluation",)),
    "evaluation-of-a-further-shape": (
        lambda d: replace(
            further(d), further_shapes=further(evaluated(d)).further_shapes, derived_from=DIGEST
        ),
        ("furtherShapes", "quality.metrics.evaluation"),
    ),
}
"""Name → (what makes it of a document, the additions that it then has)."""
