"""Policy: what each guidance branch computes and what it reuses."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Final, Literal, Self

from msgspec import Meta

from budc.schema.errors import SemanticsViolation
from budc.schema.fields import Name, StepCount, Strict, Text
from budc.schema.mask import MAX_STEPS, StepMask
from budc.schema.predictor import MAX_COEFFICIENT, MAX_TERMS, Predictor

Payload = Literal["trunk-residual", "velocity", "trunk-output"]
"""What a reused step takes from computed ones: residual of the blocks, velocity, or output of the blocks."""
PAYLOADS: Final[tuple[Payload, ...]] = ("trunk-residual", "velocity")
"""The payloads that this release computes with; the output of the blocks is for other engines."""


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
