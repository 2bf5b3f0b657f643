"""What one branch does at every step: compute, or combine cached tensors; and how many of these it keeps.

It imports no framework.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from budc.schema.errors import SemanticsViolation


@dataclass(frozen=True)
class PlannedStep:
    """One step of one branch.

    `coefficients` are newest first, and empty where the step is computed. `keep` is how many cached tensors,
    newest first, later steps still need once this step is done. A runtime holds that many and never more.
    """

    coefficients: tuple[float, ...]
    keep: int

    @property
    def computed(self) -> bool:
        """Whether the blocks run at this step."""
        return not self.coefficients


def plan_branch(
    mask: Sequence[bool], predictor: Sequence[Sequence[float]], first_steps: Collection[int] = ()
) -> tuple[PlannedStep, ...]:
    """Return one `PlannedStep` per step for a mask (true = compute) and its predictor rows.

    Trailing zero coefficients are dropped: they would hold a tensor that adds nothing. At each of `first_steps`
    another denoiser takes over: nothing cached is carried from one denoiser to the next.

    Raises:
        SemanticsViolation: a row is missing, or reuses more tensors than have been computed by then.
    """
    if len(mask) != len(predictor):
        raise SemanticsViolation(f"predictor has {len(predictor)} rows, but the mask has {len(mask)} steps")
    rows = [() if compute else _needed(row) for compute, row in zip(mask, predictor, strict=True)]
    computed = 0
    for step, row in enumerate(rows):
        if step in first_steps:
            computed = 0
        if mask[step]:
            computed += 1
        elif not 1 <= len(row) <= computed:
            raise SemanticsViolation(
                f"step {step} combines {len(row)} computed steps, but its denoiser has {computed} before it"
            )
    keeps: list[int] = []
    needed = 0
    for step in reversed(range(len(rows))):
        keeps.append(needed)
        # Before this step, a computed one fills the newest place itself; a reused one needs what it combines.
        needed = max(needed - 1, 0) if mask[step] else max(needed, len(rows[step]))
        if step in first_steps:
            needed = 0
    return tuple(PlannedStep(row, keep) for row, keep in zip(rows, reversed(keeps), strict=True))


def _needed(row: Sequence[float]) -> tuple[float, ...]:
    terms = len(row)
    while terms > 1 and row[terms - 1] == 0.0:
        terms -= 1
    return tuple(row[:terms])
