"""PolicyDocument: the Python reading of `policy-v1.schema.json`, field for field.

Structs are frozen and are not validated when they are constructed. `budc.schema.artifact.seal` decodes the encoded
document before it signs, so a value out of bounds is refused there and the error names the field. Names are
snake_case here and camelCase in JSON. An optional field that is not set is left out of the JSON, never null.

Parts and fields that `budc.schema.additions` lists were added by format 1.1.

JSON does not tell 5.0 from 5: a `5.0` in a scheduler config or a search setting is read back as `5`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple, Self

from msgspec import Meta, field
from msgspec.structs import replace

from budc.schema.errors import SemanticsViolation, UnsupportedModel
from budc.schema.fields import (
    MAX_MAGNITUDE,
    ConfigValue,
    Count,
    Digest,
    Guidance,
    HexDigest,
    Name,
    Number,
    Path,
    Pixels,
    Positive,
    Prompt,
    Settings,
    StepCount,
    Strict,
    Text,
    Timestamp,
)
from budc.schema.mask import MAX_STEPS, StepMask
from budc.schema.predictor import MAX_COEFFICIENT, MAX_TERMS, Predictor
from budc.schema.sigmas import MAX_SIGMA, Sigmas

REPLAY_TOLERANCE: Final = 0.02
"""Tolerance of a report that states none. On the same weights and prompts, other hardware and library versions change
figures by less."""

SchemaVersion = Literal["1.0", "1.1"]
SCHEMA_VERSION: Final[SchemaVersion] = "1.0"
"""What documents are made with. `budc.schema.artifact.seal` writes the lowest version that has all of their fields."""

MAX_DENOISERS: Final = 8

NetworkConfig = Annotated[Mapping[Name, ConfigValue], Meta(min_length=1, max_length=256)]
_Level = Annotated[float, Meta(ge=0, le=MAX_SIGMA)]
NoiseLevels = Annotated[Sequence[_Level], Meta(min_length=2, max_length=MAX_STEPS + 1)]
Timesteps = Annotated[Sequence[_Level], Meta(min_length=1, max_length=MAX_STEPS)]

Payload = Literal["trunk-residual", "velocity", "trunk-output"]
"""What a reused step takes from computed ones: residual of the blocks, velocity, or output of the blocks."""
PAYLOADS: Final[tuple[Payload, ...]] = ("trunk-residual", "velocity")
"""The payloads that this release computes with; the output of the blocks is for other engines."""


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


class NegativePrompt(Strict, frozen=True, kw_only=True):
    """The negative prompt of the calibration prompts: one for all of them, or one that varied between them."""

    rule: Literal["fixed", "varied"]
    text: Prompt | None = None
    """What a run must use, where it is fixed; may be empty."""


class Expert(Strict, frozen=True, kw_only=True):
    """A denoiser that takes over from the one before it, from `first_step` on."""

    denoiser: Name
    """One of `ModelBinding.denoisers`."""
    first_step: Annotated[int, Meta(ge=1, le=MAX_STEPS - 1)]
    """The first step that it runs, counted from 0; always computed."""
    guidance: Guidance
    """Guidance scale of its steps."""


class SamplerBinding(Strict, frozen=True, kw_only=True):
    """The sampler that the policy was made for."""

    scheduler: Name
    """Class name."""
    config: Annotated[Mapping[Name, ConfigValue], Meta(max_length=256)]
    """The scheduler's settings that decide its output; no private keys."""
    config_digest: Digest
    """`budc.schema.canonical.digest(config)`."""
    steps: StepCount
    sigmas: NoiseLevels
    """`steps + 1` noise levels, terminal value included."""
    timesteps: Timesteps
    """`steps` values, what the transformer is given; terminal value not included."""
    guidance: Guidance
    """Guidance scale; of the first denoiser where there are several."""
    guidance_rule: Literal["classifier-free", "distilled", "none"]
    negative_prompt: NegativePrompt | None = None
    """Only with classifier-free guidance."""
    experts: Annotated[Sequence[Expert], Meta(max_length=MAX_DENOISERS - 1)] = field(default_factory=list)
    """Every denoiser after the first, in the order of `ModelBinding.denoisers`."""

    @property
    def first_steps(self) -> tuple[int, ...]:
        """The first step of every denoiser after the first."""
        return tuple(expert.first_step for expert in self.experts)

    def expert_at(self, step: int) -> int:
        """Return the index of the denoiser that runs at a step, 0 for the first."""
        return bisect_right(self.first_steps, step)

    def guidance_at(self, step: int) -> float:
        """Return the guidance scale of a step."""
        denoiser = self.expert_at(step)
        return self.experts[denoiser - 1].guidance if denoiser else self.guidance

    def schedule(self) -> Sigmas:
        """Return the sigmas as a validated schedule. Raises SemanticsViolation."""
        return Sigmas.of(self.sigmas)


class Shape(Strict, frozen=True, kw_only=True):
    """The size and precision of output for which quality was measured."""

    height: Pixels
    width: Pixels
    frames: Pixels
    """1 for images."""
    dtype: Literal["float32", "bfloat16", "float16"]
    text_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Padded length of the text that the transformer sees."""


ImageRole = Literal["first-frame", "last-frame", "reference"]


class ConditioningImage(Strict, frozen=True, kw_only=True):
    """An image that each sample is made from, beside its prompt."""

    role: ImageRole
    height: Pixels | None = None
    width: Pixels | None = None
    """As the model sees it; the size of the output if unset."""


class Budget(Strict, frozen=True, kw_only=True):
    """The requested budget, and the number of evaluations that it gives."""

    requested: Text
    """As the user wrote it: "10", "2.8x", and so on."""
    nfe: StepCount
    """Evaluations of the blocks per guidance branch; of the branch with most where they differ."""
    branches: Annotated[Mapping[Name, StepCount], Meta(min_length=1, max_length=16)]
    """The same for each branch by name."""


class BranchPolicy(Strict, frozen=True, kw_only=True):
    """Mask and predictor for one or more guidance branches."""

    names: Annotated[Sequence[Name], Meta(min_length=1, max_length=16)]
    """The branches that follow this mask; all names in one entry means one shared mask."""
    mask: Annotated[Sequence[bool], Meta(min_length=1, max_length=MAX_STEPS)]
    """True = compute."""
    predictor: Annotated[
        Sequence[
            Annotated[
                Sequence[Annotated[float, Meta(ge=-MAX_COEFFICIENT, le=MAX_COEFFICIENT)]],
                Meta(max_length=MAX_TERMS),
            ]
        ],
        Meta(min_length=1, max_length=MAX_STEPS),
    ]
    """Per step the coefficients, newest residual first; empty where computed."""

    @classmethod
    def of(cls, names: Iterable[str], rows: Iterable[Iterable[float]]) -> Self:
        """Return the branches `names` with these coefficients per step; a step without any is computed."""
        predictor = [list(row) for row in rows]
        return cls(names=list(names), mask=[not row for row in predictor], predictor=predictor)

    @classmethod
    def plain(cls, names: Iterable[str], mask: Iterable[bool]) -> Self:
        """Return the branches `names` with plain reuse: the newest cached tensor, unchanged."""
        return cls.of(names, ([] if compute else [1.0] for compute in mask))

    def step_mask(self) -> StepMask:
        """Return the validated mask. Raises SemanticsViolation."""
        return StepMask.of(self.mask)

    def step_predictor(self) -> Predictor:
        """Return the predictor, validated against the mask. Raises SemanticsViolation."""
        return Predictor.of(self.predictor, self.step_mask())


class Policy(Strict, frozen=True, kw_only=True):
    """What to compute, what to reuse and how, for every guidance branch."""

    payload: Payload
    """What a reused step repeats: h_out - h_in around the blocks, the transformer's output itself, or h_out."""
    branches: Annotated[Sequence[BranchPolicy], Meta(min_length=1, max_length=16)]

    @classmethod
    def of(cls, payload: Payload, rows: Mapping[str, Iterable[Iterable[float]]]) -> Self:
        """Return the policy with these coefficients per branch and step; branches that agree share an entry."""
        sharing: dict[tuple[tuple[float, ...], ...], list[str]] = {}
        for name, branch_rows in rows.items():
            sharing.setdefault(tuple(tuple(row) for row in branch_rows), []).append(name)
        return cls(payload=payload, branches=[BranchPolicy.of(names, own) for own, names in sharing.items()])

    def for_branch(self, name: str) -> BranchPolicy:
        """Return the entry of the guidance branch `name`.

        Raises:
            SemanticsViolation: the policy has no such branch.
        """
        for branch in self.branches:
            if name in branch.names:
                return branch
        names = ", ".join(other for branch in self.branches for other in branch.names)
        raise SemanticsViolation(
            f"policy has no guidance branch {name!r}, only {names}",
            remedy="use a policy that was compiled with the guidance of this run",
        )


class PromptSet(Strict, frozen=True, kw_only=True):
    """A set of prompts and seeds, identified by its content."""

    digest: Digest
    size: Count
    """0 if the policy needed no calibration."""


class Metric(Strict, frozen=True, kw_only=True):
    """One measure of the cached run against the full run, over the held-out prompts."""

    name: Name
    """"latent-mse", "psnr", …"""
    unit: Text | None = None
    mean: Number
    standard_error: Annotated[float, Meta(ge=0, le=MAX_MAGNITUDE)]
    worst: Number
    """The value of the worst prompt: the largest error, the smallest PSNR."""
    geometric_mean: Number | None = None
    p95: Number | None = None
    samples: Positive
    evaluation: Digest | None = None
    """sha256 of the payload of the signed evaluation that the figure is from; unset if the compiler measured it."""


_Metrics = Annotated[Sequence[Metric], Meta(max_length=64)]


class Baseline(Strict, frozen=True, kw_only=True):
    """A simpler method, measured on the same prompts."""

    name: Name
    nfe: StepCount
    metrics: _Metrics


class Quality(Strict, frozen=True, kw_only=True):
    """What the policy costs in quality, and what simpler methods cost."""

    objective: Name
    calibration: PromptSet
    held_out: PromptSet
    metrics: _Metrics
    baselines: Annotated[Sequence[Baseline], Meta(max_length=64)]
    replay_tolerance: Annotated[float, Meta(ge=1e-6, le=0.1)] | None = None
    """Relative difference up to which figures that are measured again agree with these; `REPLAY_TOLERANCE` if unset."""


class FurtherShape(Strict, frozen=True, kw_only=True):
    """A further size of output for the same masks, with its own report. Dtype and text length are those of `Shape`."""

    height: Pixels
    width: Pixels
    frames: Pixels
    quality: Quality
    sigmas: NoiseLevels | None = None
    timesteps: Timesteps | None = None
    """Sigmas and timesteps of this size, where they are not the sampler's; both or neither."""
    branches: Annotated[Sequence[BranchPolicy], Meta(max_length=16)] = field(default_factory=list)
    """Predictors of this size, where they are not the policy's; the same branches and masks in the same order."""


class Search(Strict, frozen=True, kw_only=True):
    """How the policy was found: enough to repeat the search."""

    algorithm: Name
    seed: Annotated[int, Meta(ge=0, le=2**53 - 1)]
    candidates: Count
    """Candidates scored."""
    forwards: Count
    """Transformer forwards spent; a backward pass counts as two."""
    settings: Settings
    versions: Annotated[Mapping[Name, Text], Meta(max_length=256)]
    """Package → version."""


class Target(Strict, frozen=True, kw_only=True):
    """The engine that a policy was made for, with the engine's own rule of reuse."""

    name: Name
    version: Text | None = None
    """The release of the engine whose behaviour the search assumed."""
    settings: Settings = field(default_factory=dict)
    """What the engine must be told beside the policy."""
    config_digest: Digest | None = None
    """sha256 of the engine's own configuration file with this policy."""


class Pipeline(NamedTuple):
    """What only the policy of a pipeline says of its model."""

    profile: str
    pipeline_class: str
    shapes: tuple[Shape, ...]
    """The shape that was searched on, then the further ones."""

    @property
    def shape(self) -> Shape:
        """The shape that was searched on."""
        return self.shapes[0]

    def shape_of(self, frames: int, height: int, width: int) -> Shape:
        """Return the calibrated shape of this size, or the one that was searched on if there is none."""
        size = (frames, height, width)
        same = (shape for shape in self.shapes if (shape.frames, shape.height, shape.width) == size)
        return next(same, self.shape)


class PolicyDocument(Strict, frozen=True, kw_only=True):
    """The predicate of the signed statement: one policy and everything that it depends on."""

    schema_version: SchemaVersion
    name: Name
    revision: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """Grows with every release under the same name; trust files hold a minimum."""
    issued_at: Timestamp
    not_after: Timestamp | None = None
    """From this second on the policy is expired."""
    model: ModelBinding
    sampler: SamplerBinding
    shape: Shape | None = None
    """Unset for a network alone."""
    further_shapes: Annotated[Sequence[FurtherShape], Meta(max_length=16)] = field(default_factory=list)
    images: Annotated[Sequence[ConditioningImage], Meta(max_length=8)] = field(default_factory=list)
    """The images that condition a sample, in their order."""
    target: Target | None = None
    """Unset for the runtimes of budc."""
    budget: Budget
    policy: Policy
    quality: Quality
    search: Search
    derived_from: Digest | None = None
    """Policy id of the policy that this one was transferred or re-bound from."""
    annotations: Annotated[Mapping[Name, Text], Meta(max_length=64)] = field(default_factory=dict)
    """Free text that no program interprets."""

    def of_size(self, frames: int, height: int, width: int) -> Self:
        """Return the document with the sigmas and the predictors that a further shape of this size has of its own.

        For every other size it is the document itself.
        """
        size = (frames, height, width)
        for shape in self.further_shapes:
            if (shape.frames, shape.height, shape.width) == size:
                sampler, policy = self.sampler, self.policy
                if shape.sigmas is not None and shape.timesteps is not None:
                    sampler = replace(sampler, sigmas=shape.sigmas, timesteps=shape.timesteps)
                if shape.branches:
                    policy = replace(policy, branches=shape.branches)
                return replace(self, sampler=sampler, policy=policy)
        return self

    def pipeline(self) -> Pipeline:
        """Return what the policy says of its pipeline.

        Raises:
            UnsupportedModel: it is a policy for a network without one.
        """
        model, shape = self.model, self.shape
        if model.profile is None or model.pipeline_class is None or shape is None:
            raise UnsupportedModel(
                f"{self.name} is a policy for a network without a pipeline (model.kind), which cannot be run here",
                remedy="run it on its network, from Python: budc.run",
            )
        further = (
            replace(shape, height=other.height, width=other.width, frames=other.frames)
            for other in self.further_shapes
        )
        return Pipeline(model.profile, model.pipeline_class, (shape, *further))
