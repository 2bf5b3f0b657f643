"""Pass 3, search: the loop between an algorithm that proposes and rollouts that score.

    loss(candidate) = mean over prompts of the squared error of the final latents against the full run (`mean`),
                      or of its logarithm (`log-mean`), which the few prompts that flip to another mode cannot own

Every candidate is scored once: scores and coefficients are in the journal before the algorithm sees them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import msgspec

from budc.compiler.fitting.trajectory import CoefficientRows
from budc.compiler.rollouts.metrics import objective
from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate, Space, algorithm
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.schema.errors import CompileError
from budc.schema.policy import Policy

FINALISTS = 4


class Scored(msgspec.Struct, frozen=True):
    """A candidate, its loss on the search prompts and the policy that it became there."""

    candidate: Candidate
    loss: float
    policy: Policy


class StudyResult(msgspec.Struct, frozen=True):
    """The best candidates of a search, best first, and what it cost."""

    finalists: tuple[Scored, ...]
    candidates: int
    forwards: int


def search(name: str, space: Space, tree: Tree, journal: Journal, seed: int) -> StudyResult:
    """Run an algorithm to its end and return the best `FINALISTS` of what it scored.

    Raises:
        UsageError: there is no algorithm of that name, or it cannot search this space.
        CompileError: a candidate's final latents are not finite although its rule fits nothing, or no candidate's
            are.
    """
    chosen = algorithm(name)
    walk = chosen.propose(space, random.Random(seed))
    known: dict[str, tuple[Candidate, float, Sequence[CoefficientRows], int]] = {}

    def score(candidates: Sequence[Candidate]) -> list[float]:
        fresh: list[Candidate] = []
        for candidate in {c.key: c for c in candidates if c.key not in known}.values():
            record = journal.get(f"{name} {candidate.key}")
            if record is None:
                fresh.append(candidate)
                continue
            tree.note(candidate)
            loss = math.inf if record["loss"] is None else record["loss"]
            known[candidate.key] = (candidate, loss, record["rows"], record["forwards"])
            bar.advance(f"best {_lowest(known):.3g}", replayed=True)
        for candidate, rollout in zip(fresh, tree.roll_out(fresh), strict=True):
            loss = objective(chosen.objective, rollout.errors)
            if not math.isfinite(loss) and candidate.rule == "plain":
                raise CompileError(
                    f"candidate {candidate.key}: the final latents are not finite",
                    remedy="check that the full run works in the profile's dtype; try another search or budget",
                )
            record = {
                "loss": loss if math.isfinite(loss) else None,
                "rows": rollout.rows,
                "forwards": rollout.forwards,
            }
            journal.put(f"{name} {candidate.key}", record)
            known[candidate.key] = (candidate, loss, rollout.rows, rollout.forwards)
            bar.advance(f"best {_lowest(known):.3g}")
        return [known[candidate.key][1] for candidate in candidates]

    with progress(f"search ({name})", chosen.max_candidates(space)) as bar:
        candidates = next(walk)
        while True:
            try:
                candidates = walk.send(score(candidates))
            except StopIteration:
                break
    ranked = sorted(known.values(), key=lambda entry: entry[1])
    finalists = tuple(
        Scored(candidate, loss, policy_of(tree, candidate, rows))
        for candidate, loss, rows, _ in ranked[:FINALISTS]
        if math.isfinite(loss)
    )
    if not finalists:
        raise CompileError(
            f"--search {name}: the final latents of none of {len(known)} candidates are finite",
            remedy="check that the full run works in the profile's dtype; try another search or budget",
        )
    return StudyResult(finalists, len(known), sum(entry[3] for entry in known.values()))


def policy_of(tree: Tree, candidate: Candidate, rows: Sequence[CoefficientRows]) -> Policy:
    """Return the policy with these coefficients; branches that agree in everything share an entry."""
    branches = tree.network.denoiser.branches
    return Policy.of(candidate.payload, {name: [row.get(name, ()) for row in rows] for name in branches})


def _lowest(known: dict[str, tuple[Candidate, float, Sequence[CoefficientRows], int]]) -> float:
    return min(entry[1] for entry in known.values())
