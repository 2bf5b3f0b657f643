"""ModelBinding: the model that a policy was made for, by its content."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from msgspec import Meta, field

from budc.schema.fields import ConfigValue, Digest, Guidance, HexDigest, Name, Path, Positive, Strict

MAX_DENOISERS: Final = 8
NetworkConfig = Annotated[Mapping[Name, ConfigValue], Meta(min_length=1, max_length=256)]


class BranchWeight(Strict, frozen=True, kw_only=True):
    """What a guidance branch counts for in the guided velocity Σ weight · velocity; the weights add up to 1."""

    branch: Name
    weight: Guidance


class Quantization(Strict, frozen=True, kw_only=True):
    """How a denoiser is quantised once its files are loaded."""

    kind: Name
    """One configuration of one library, see `budc.policies.quantization`."""
    values: Digest
    """Tensor root of the values that it computes with, as plain numbers."""


class DenoiserBinding(Strict, frozen=True, kw_only=True):
    """One network whose blocks the policy skips, identified by its content."""

    name: Name
    """Component of the pipeline, "transformer" or "transformer_2"."""
    class_name: Name
    tensor_root: Digest
    """`budc.schema.digests.tensor_root` of the weights: survives resharding."""
    architecture: Digest
    """`budc.schema.digests.architecture_digest` of the weights: names and shapes, survives casts."""
    config: NetworkConfig | None = None
    """What `config.json` says, without the library's own notes, see `budc.schema.model_config`."""
    blocks: Name | None = None
    """Of a network: its attribute that lists the blocks; unset where functions say what they cache and reuse."""
    guidance: Annotated[Sequence[BranchWeight], Meta(max_length=16)] = field(default_factory=list)
    """Of a network: the weight of each guidance branch, in the order in which they are added up."""
    quantization: Quantization | None = None
    """Unset for weights as they are in the files. Digests and settings above are those of the files all the same."""


class Variant(Strict, frozen=True, kw_only=True):
    """One accepted set of files; a model folder is accepted when all files of one variant match."""

    name: Name
    """"original", "fp8", "onnx", …"""
    files: Annotated[Mapping[Path, HexDigest], Meta(min_length=1, max_length=4096)]
    """Path below the model folder → sha256. Weights, their configs and the scheduler's config."""


class ScaledAdapter(Strict, frozen=True, kw_only=True):
    """An adapter that was loaded, at this scale, when the policy was made."""

    name: Name
    """What it is called; only its digests identify it."""
    file: HexDigest
    """sha256 of its safetensors file."""
    loaded: Digest | None = None
    """Tensor root of what it adds to the denoiser; see "Adapters" in the specification."""
    scale: Annotated[float, Meta(ge=-1000, le=1000)]
    """Weight of the adapter, 1 for as it is."""
    denoiser: Name | None = None
    """The one of `ModelBinding.denoisers` that it is loaded into; all of them if unset."""


class AdapterRule(Strict, frozen=True, kw_only=True):
    """Whether the policy may run with adapters (LoRA): none, any, or those listed."""

    rule: Literal["none", "any", "listed"]
    digests: Annotated[Sequence[Digest], Meta(max_length=64)] = field(default_factory=list)
    """Each may be loaded."""
    scaled: Annotated[Sequence[ScaledAdapter], Meta(max_length=64)] = field(default_factory=list)
    """All of these are loaded, and no others."""


class ModelBinding(Strict, frozen=True, kw_only=True):
    """The model that the policy was made for: a pipeline, or a network without one."""

    kind: Literal["pipeline", "network"] = "pipeline"
    """A network has no profile, pipeline class or shape; its owner runs it. "pipeline" is not written."""
    profile: Name | None = None
    family: Name
    pipeline_class: Name | None = None
    denoisers: Annotated[Sequence[DenoiserBinding], Meta(min_length=1, max_length=MAX_DENOISERS)]
    variants: Annotated[Sequence[Variant], Meta(max_length=32)] = field(default_factory=list)
    """The first one is the original; its files are the subjects of the signed statement. A network may have none:
    then the tensor roots of its denoisers are."""
    latents: Annotated[Sequence[Positive], Meta(max_length=8)] = field(default_factory=list)
    """Of a network: the shape of one sample's latents."""
    adapters: AdapterRule
