"""PolicyDocument: one policy and everything that it depends on."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal, NamedTuple, Self

from msgspec import Meta, field
from msgspec.structs import replace

from budc.schema.errors import UnsupportedModel
from budc.schema.fields import Digest, Name, Strict, Text, Timestamp
from budc.schema.policy.branches import Budget, Policy
from budc.schema.policy.model import ModelBinding
from budc.schema.policy.origin import Search, Target
from budc.schema.policy.quality import Quality
from budc.schema.policy.sampler import SamplerBinding
from budc.schema.policy.shapes import ConditioningImage, FurtherShape, Shape

SchemaVersion = Literal["1.0", "1.1"]
SCHEMA_VERSION: Final[SchemaVersion] = "1.0"
"""What documents are made with. `budc.schema.artifact.seal` writes the lowest version that has all of their fields."""


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
