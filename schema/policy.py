"""PolicyDocument: the Python reading of `policy-v1.schema.json`, field for field.

Structs are frozen and are not validated when they are constructed. `budc.schema.artifact.seal` decodes the encoded
document before it signs, so a value out of bounds is refused there and the error names the field. Names are
snake_case here and camelCase in JSON. An optional field that is not set is left out of the JSON, never null.

JSON does not tell 5.0 from 5: a `5.0` in a scheduler config or a search setting is read back as `5`.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, Self, get_args

from msgspec import Meta, Struct, field

from budc.schema.errors import SemanticsViolation
from budc.schema.mask import MAX_STEPS, StepMask
from budc.schema.predictor import MAX_COEFFICIENT, MAX_TERMS, Predictor
from budc.schema.sigmas import MAX_SIGMA, Sigmas

REPLAY_TOLERANCE: Final = 0.02
"""Tolerance of a report that states none. On the same weights and prompts, other hardware and library versions change
figures by less."""

SCHEMA_VERSION: Final = "1.0"
PREDICATE_TYPE: Final = "urn:budc:policy:v1"

# \Z and not $: Python's $ also matches before a trailing newline.
_HIDDEN = "\\x00-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff"
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._+=@-]+"
MAX_DENOISERS: Final = 8
_MAGNITUDE = 1e15
_COUNT = 10**15

Payload = Literal["trunk-residual", "velocity"]
"""What a reused step takes from computed ones: the residual of the blocks, or the velocity."""
PAYLOADS: Final[tuple[Payload, ...]] = get_args(Payload)

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]*\Z")]
"""ASCII letters, digits, dot, underscore and dash; the first one neither dot nor dash."""

Text = Annotated[str, Meta(max_length=1024, pattern=rf"\A[^{_HIDDEN}]*\Z")]
"""One line of free text without control, zero-width or direction-changing characters."""

Digest = Annotated[str, Meta(max_length=71, pattern=r"\Asha256:[0-9a-f]{64}\Z")]
"""A digest with its algorithm, "sha256:<64 hex digits>"."""

HexDigest = Annotated[str, Meta(max_length=64, pattern=r"\A[0-9a-f]{64}\Z")]
"""The sha256 of a file as 64 hex digits, as in-toto subjects write it."""

Path = Annotated[str, Meta(min_length=1, max_length=512, pattern=rf"\A{_SEGMENT}(?:/{_SEGMENT})*\Z")]
"""A file below the model folder: relative, "/" between segments, no "..", nothing that needs quoting."""

Timestamp = Annotated[
    str, Meta(max_length=20, pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
]
"""RFC 3339 in UTC to the second, "2026-07-01T12:00:00Z"."""

Number = Annotated[float, Meta(ge=-_MAGNITUDE, le=_MAGNITUDE)]
Positive = Annotated[int, Meta(ge=1, le=_COUNT)]
Count = Annotated[int, Meta(ge=0, le=_COUNT)]
StepCount = Annotated[int, Meta(ge=1, le=MAX_STEPS)]
Pixels = Annotated[int, Meta(ge=1, le=65536)]
Guidance = Annotated[float, Meta(ge=-1000, le=1000)]
Integer = Annotated[int, Meta(ge=-_COUNT, le=_COUNT)]
Scalar = bool | Integer | Number | Text | None
# Strings in a scheduler config have no pattern here; `budc.schema.semantics` refuses hidden characters instead.
# Reason: msgspec 0.22 frees a pattern twice, at exit, if a union holds both a str with a pattern and a list.
ConfigScalar = bool | Integer | Number | Annotated[str, Meta(max_length=1024)] | None
ConfigValue = ConfigScalar | Annotated[Sequence[ConfigScalar], Meta(max_length=1000)]
Settings = Annotated[Mapping[Name, Scalar], Meta(max_length=256)]


class _Strict(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """Base of all parts: immutable, no unknown fields, camelCase, unset fields left out."""


class DenoiserBinding(_Strict, frozen=True, kw_only=True):
    """One network whose blocks the policy skips, identified by its content."""

    name: Name
    """Component of the pipeline, "transformer" or "transformer_2"."""
    class_name: Name
    tensor_root: Digest
    """`budc.schema.digests.tensor_root` of the weights: survives resharding."""
    architecture: Digest
    """`budc.schema.digests.architecture_digest` of the weights: names and shapes, survives casts."""


class Variant(_Strict, frozen=True, kw_only=True):
    """One accepted set of files; a model folder is accepted when all files of one variant match."""

    name: Name
    """"original", "fp8", "onnx", …"""
    files: Annotated[Mapping[Path, HexDigest], Meta(min_length=1, max_length=4096)]
    """Path below the model folder → sha256. Weights, their configs and the scheduler's config."""


class AdapterRule(_Strict, frozen=True, kw_only=True):
    """Whether the policy may run with adapters (LoRA): none, any, or those listed by digest."""

    rule: Literal["none", "any", "listed"]
    digests: Annotated[Sequence[Digest], Meta(max_length=64)] = field(default_factory=list)


class ModelBinding(_Strict, frozen=True, kw_only=True):
    """The model that the policy was made for."""

    profile: Name
    family: Name
    pipeline_class: Name
    denoisers: Annotated[Sequence[DenoiserBinding], Meta(min_length=1, max_length=MAX_DENOISERS)]
    variants: Annotated[Sequence[Variant], Meta(min_length=1, max_length=32)]
    """The first one is the original; its files are the subjects of the signed statement."""
    adapters: AdapterRule


class Expert(_Strict, frozen=True, kw_only=True):
    """A denoiser that takes over from the one before it, from `first_step` on."""

    denoiser: Name
    """One of `ModelBinding.denoisers`."""
    first_step: Annotated[int, Meta(ge=1, le=MAX_STEPS - 1)]
    """The first step that it runs, counted from 0; always computed."""
    guidance: Guidance
    """Guidance scale of its steps."""


class SamplerBinding(_Strict, frozen=True, kw_only=True):
    """The sampler that the policy was made for."""

    scheduler: Name
    """Class name."""
    config: Annotated[Mapping[Name, ConfigValue], Meta(max_length=256)]
    """The scheduler's settings that decide its output; no private keys."""
    config_digest: Digest
    """`budc.schema.canonical.digest(config)`."""
    steps: StepCount
    sigmas: Annotated[
        Sequence[Annotated[float, Meta(ge=0, le=MAX_SIGMA)]], Meta(min_length=2, max_length=MAX_STEPS + 1)
    ]
    """`steps + 1` noise levels, terminal value included."""
    timesteps: Annotated[
        Sequence[Annotated[float, Meta(ge=0, le=MAX_SIGMA)]], Meta(min_length=1, max_length=MAX_STEPS)
    ]
    """`steps` values, what the transformer is given; terminal value not included."""
    guidance: Guidance
    """Guidance scale; of the first denoiser where there are several."""
    guidance_rule: Literal["classifier-free", "distilled", "none"]
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


class Shape(_Strict, frozen=True, kw_only=True):
    """The size and precision of output for which quality was measured."""

    height: Pixels
    width: Pixels
    frames: Pixels
    """1 for images."""
    dtype: Literal["float32", "bfloat16", "float16"]
    text_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    """Padded length of the text that the transformer sees."""


class Budget(_Strict, frozen=True, kw_only=True):
    """The requested budget, and the number of evaluations that it gives."""

    requested: Text
    """As the user wrote it: "10", "2.8x", and so on."""
    nfe: StepCount
    """Evaluations of the blocks per guidance branch; of the branch with most where they differ."""
    branches: Annotated[Mapping[Name, StepCount], Meta(min_length=1, max_length=16)]
    """The same for each branch by name."""


class BranchPolicy(_Strict, frozen=True, kw_only=True):
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


class Policy(_Strict, frozen=True, kw_only=True):
    """What to compute, what to reuse and how, for every guidance branch."""

    payload: Payload
    """What a reused step repeats: h_out - h_in around the blocks, or the transformer's output itself."""
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


class PromptSet(_Strict, frozen=True, kw_only=True):
    """A set of prompts and seeds, identified by its content."""

    digest: Digest
    size: Count
    """0 if the policy needed no calibration."""


class Metric(_Strict, frozen=True, kw_only=True):
    """One measure of the cached run against the full run, over the held-out prompts."""

    name: Name
    """"latent-mse", "psnr", …"""
    unit: Text | None = None
    mean: Number
    standard_error: Annotated[float, Meta(ge=0, le=_MAGNITUDE)]
    worst: Number
    """The value of the worst prompt: the largest error, the smallest PSNR."""
    geometric_mean: Number | None = None
    p95: Number | None = None
    samples: Positive


_Metrics = Annotated[Sequence[Metric], Meta(max_length=64)]


class Baseline(_Strict, frozen=True, kw_only=True):
    """A simpler method, measured on the same prompts."""

    name: Name
    nfe: StepCount
    metrics: _Metrics


class Quality(_Strict, frozen=True, kw_only=True):
    """What the policy costs in quality, and what simpler methods cost."""

    objective: Name
    calibration: PromptSet
    held_out: PromptSet
    metrics: _Metrics
    baselines: Annotated[Sequence[Baseline], Meta(max_length=64)]
    replay_tolerance: Annotated[float, Meta(ge=1e-6, le=0.1)] | None = None
    """Relative difference up to which figures that are measured again agree with these; `REPLAY_TOLERANCE` if unset."""


class Search(_Strict, frozen=True, kw_only=True):
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


class PolicyDocument(_Strict, frozen=True, kw_only=True):
    """The predicate of the signed statement: one policy and everything that it depends on."""

    schema_version: Literal["1.0"]
    name: Name
    revision: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """Grows with every release under the same name; trust files hold a minimum."""
    issued_at: Timestamp
    not_after: Timestamp | None = None
    """From this second on the policy is expired."""
    model: ModelBinding
    sampler: SamplerBinding
    shape: Shape
    budget: Budget
    policy: Policy
    quality: Quality
    search: Search
    derived_from: Digest | None = None
    """Policy id of the policy that this one was transferred or re-bound from."""
    annotations: Annotated[Mapping[Name, Text], Meta(max_length=64)] = field(default_factory=dict)
    """Free text that no program interprets."""
