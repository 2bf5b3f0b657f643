"""PolicyDocument: the Python reading of `policy-v1.schema.json`, field for field.

Structs are frozen and are not validated when they are constructed. `budc.schema.artifact.seal` decodes the encoded
document before it signs, so a value out of bounds is refused there and the error names the field. Names are
snake_case here and camelCase in JSON. An optional field that is not set is left out of the JSON, never null.

Parts and fields that `budc.schema.additions` lists were added by format 1.1.

JSON does not tell 5.0 from 5: a `5.0` in a scheduler config or a search setting is read back as `5`.
"""

from budc.schema.policy.branches import PAYLOADS, BranchPolicy, Budget, Payload, Policy
from budc.schema.policy.document import SCHEMA_VERSION, Pipeline, PolicyDocument, SchemaVersion
from budc.schema.policy.model import (
    MAX_DENOISERS,
    AdapterRule,
    BranchWeight,
    DenoiserBinding,
    ModelBinding,
    NetworkConfig,
    Quantization,
    ScaledAdapter,
    Variant,
)
from budc.schema.policy.origin import Search, Target
from budc.schema.policy.quality import REPLAY_TOLERANCE, Baseline, Metric, PromptSet, Quality
from budc.schema.policy.sampler import Expert, NegativePrompt, NoiseLevels, SamplerBinding, Timesteps
from budc.schema.policy.shapes import ConditioningImage, FurtherShape, ImageRole, Shape

__all__ = [
    "MAX_DENOISERS",
    "PAYLOADS",
    "REPLAY_TOLERANCE",
    "SCHEMA_VERSION",
    "AdapterRule",
    "Baseline",
    "BranchPolicy",
    "BranchWeight",
    "Budget",
    "ConditioningImage",
    "DenoiserBinding",
    "Expert",
    "FurtherShape",
    "ImageRole",
    "Metric",
    "ModelBinding",
    "NegativePrompt",
    "NetworkConfig",
    "NoiseLevels",
    "Payload",
    "Pipeline",
    "Policy",
    "PolicyDocument",
    "PromptSet",
    "Quality",
    "Quantization",
    "SamplerBinding",
    "ScaledAdapter",
    "SchemaVersion",
    "Search",
    "Shape",
    "Target",
    "Timesteps",
    "Variant",
]
