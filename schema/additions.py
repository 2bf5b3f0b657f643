"""What format 1.1 added to 1.0, and which optional fields a document of a version and of a kind may have.

    >>> additions(document)
    ('sampler.negativePrompt', 'furtherShapes')

A runtime refuses every addition that it does not know how to run (`budc.runtimes.admission.additions`), so that none
is ignored. A writer takes the lowest version that has the document's fields: artifacts that use nothing new keep their
bytes and the readers that they had.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec.structs import replace

from budc.schema.errors import SchemaViolation
from budc.schema.policy import FurtherShape, Metric, PolicyDocument, Quality, SchemaVersion

SCALED_ADAPTERS: Final = "model.adapters.scaled"
NETWORK: Final = "model.kind"
NETWORK_CONFIG: Final = "model.denoisers.config"
QUANTIZATION: Final = "model.denoisers.quantization"
NEGATIVE_PROMPT: Final = "sampler.negativePrompt"
FURTHER_SHAPES: Final = "furtherShapes"
OWN_SIGMAS: Final = "furtherShapes.sigmas"
OWN_PREDICTORS: Final = "furtherShapes.branches"
IMAGES: Final = "images"
TARGET: Final = "target"
TRUNK_OUTPUT: Final = "policy.payload"
EVALUATION: Final = "quality.metrics.evaluation"

_HAS: Final[Mapping[str, Callable[[PolicyDocument], bool]]] = {
    NETWORK: lambda document: document.model.kind != "pipeline",
    NETWORK_CONFIG: lambda document: any(item.config is not None for item in document.model.denoisers),
    QUANTIZATION: lambda document: any(item.quantization for item in document.model.denoisers),
    SCALED_ADAPTERS: lambda document: bool(document.model.adapters.scaled),
    NEGATIVE_PROMPT: lambda document: document.sampler.negative_prompt is not None,
    FURTHER_SHAPES: lambda document: bool(document.further_shapes),
    OWN_SIGMAS: lambda document: any(_has_own_schedule(shape) for shape in document.further_shapes),
    OWN_PREDICTORS: lambda document: any(shape.branches for shape in document.further_shapes),
    IMAGES: lambda document: bool(document.images),
    TARGET: lambda document: document.target is not None,
    TRUNK_OUTPUT: lambda document: document.policy.payload == "trunk-output",
    EVALUATION: lambda document: any(metric.evaluation is not None for metric in all_metrics(document)),
}
"""Addition, by the JSON path of its field → whether a document uses it."""


def additions(document: PolicyDocument) -> tuple[str, ...]:
    """Return what a document uses of format 1.1, by the JSON paths of the fields."""
    return tuple(name for name, used in _HAS.items() if used(document))


def lowest_version(document: PolicyDocument) -> SchemaVersion:
    """Return the lowest version of the format that has all fields of a document."""
    return "1.1" if additions(document) else "1.0"


def at_lowest_version(document: PolicyDocument) -> PolicyDocument:
    """Return the document with the lowest version that has all of its fields."""
    return replace(document, schema_version=lowest_version(document))


def reports(document: PolicyDocument) -> Iterator[tuple[str, Quality]]:
    """Yield every quality report of a document with its JSON path: that of its shape, then those of further shapes."""
    yield "quality", document.quality
    for index, shape in enumerate(document.further_shapes):
        yield f"furtherShapes[{index}].quality", shape.quality


def all_metrics(document: PolicyDocument) -> Iterator[Metric]:
    """Yield the metrics of every report, those of baselines too."""
    for _, quality in reports(document):
        yield from quality.metrics
        for baseline in quality.baselines:
            yield from baseline.metrics


def check_fields(document: PolicyDocument) -> None:
    """Check that the fields of a document are those of its version and of the kind of its model.

    Raises:
        SchemaViolation: one is not, or one is missing.
    """
    used = additions(document)
    if document.schema_version == "1.0" and used:
        raise SchemaViolation(
            f"schemaVersion is 1.0, but {used[0]} is of format 1.1",
            remedy="ask the publisher for an artifact whose schemaVersion is that of its fields",
        )
    is_network = document.model.kind == "network"
    foreign = _pipeline_fields(document) if is_network else _network_fields(document)
    for name, is_set in foreign.items():
        if is_set:
            what = "a network (model.kind) has none" if is_network else "only a network (model.kind) has it"
            raise SchemaViolation(f"{name} is set, but {what}")
    if is_network:
        return
    needed = {
        "model.profile": document.model.profile,
        "model.pipelineClass": document.model.pipeline_class,
        "model.variants": document.model.variants,
        "shape": document.shape,
    }
    for name, value in needed.items():
        if not value:
            raise SchemaViolation(f"{name} is missing, which the policy of a pipeline needs")


def _pipeline_fields(document: PolicyDocument) -> Mapping[str, bool]:
    """Return whether each of the fields is set that only a pipeline has."""
    return {
        "model.profile": document.model.profile is not None,
        "model.pipelineClass": document.model.pipeline_class is not None,
        "shape": document.shape is not None,
        **{name: _HAS[name](document) for name in (NEGATIVE_PROMPT, FURTHER_SHAPES, IMAGES)},
    }


def _network_fields(document: PolicyDocument) -> Mapping[str, bool]:
    """Return whether each of the fields is set that only a network has."""
    denoisers = document.model.denoisers
    return {
        "model.latents": bool(document.model.latents),
        "model.denoisers.blocks": any(denoiser.blocks is not None for denoiser in denoisers),
        "model.denoisers.guidance": any(denoiser.guidance for denoiser in denoisers),
    }


def _has_own_schedule(shape: FurtherShape) -> bool:
    return shape.sigmas is not None or shape.timesteps is not None
