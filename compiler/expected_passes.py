"""Expected passes: what each pass of a search and of a report takes, in forwards of one sample and branch.

It is `budc.compiler.planning.forwards` by the passes' labels. Where losses decide how long a search is, it has the
geometric mean of what such searches took, and their spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from budc.compiler.planning.dry_run import Given, dry_run, given_to
from budc.compiler.planning.shared_rollouts import unshared
from budc.compiler.search import GIVEN, GIVEN_FITTED, algorithm
from budc.compiler.selection.calibration import FIT_PASS
from budc.compiler.selection.effort import AFTER_PROXY, effort, evaluations_of_refinement
from budc.compiler.selection.refinement import COMPARED_PASS
from budc.compiler.selection.stages import Stages
from budc.compiler.selection.training_cost import paired, training_cost
from budc.policies.profile import ModelProfile
from budc.runtimes.sampling.rules import FIXED_RULES
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.mask import StepMask

Passes = dict[str, list[float]]
"""What a pass's label begins with -> forwards of each such pass, in order."""

OF_MADE_UP = 0.89
"""What the paper's search took on the embedded models, of what it takes on made-up losses: the geometric mean of the
runs in benchmarks/results/quality.json."""
SPREAD = 0.27
"""The standard deviation of the logarithm of what searches take whose length depends on losses, about as there."""
_COUNTED = ("uniform", "known", GIVEN, GIVEN_FITTED)
"""Searches of a number of candidates that does not depend on losses."""
AFTER = "joint"
"""The search at the real size, after that at the size of a proxy."""
OF_FRAMES = 1
"""Forwards that it takes about as long as to decode a sample."""


@dataclass(frozen=True, kw_only=True)
class ExpectedPasses:
    """The passes of one model and setting; `stages` says how many prompts each stage of a search is given."""

    profile: ModelProfile
    steps: int
    search: str
    effort: str
    stages: Stages
    held_out: int
    frames: bool
    align: bool = False
    engine: DeploymentTarget | None = None
    mask: StepMask | None = None
    proxy: float | None = None
    """With `--proxy`, about which share of a forward one at its size is."""

    @property
    def branches(self) -> int:
        """How many branches guidance has."""
        return len(self.profile.branches)

    @property
    def spread(self) -> float:
        """The standard deviation of the logarithm of what the search takes."""
        known = algorithm(self.search).evaluations is not None or self.mask is not None
        return 0.0 if known or self.search in _COUNTED else SPREAD

    def reference(self) -> Passes:
        """Return the full run of the calibration prompts."""
        full = self.steps * self.branches
        proxy = [] if self.proxy is None else [full * self.stages.screen * self.proxy]
        return {"calibration full": [*proxy, full * self.stages.total]}

    def worths(self, searches: int) -> Passes:
        """Return what one forward of a pass is worth here, of so many searches and the reference run."""
        if self.proxy is None:
            return {}
        each: Passes = {"calibration full": [self.proxy]}
        for label, worth in ((f"search ({self.search})", self.proxy), (f"search ({AFTER})", 1.0)):
            each.setdefault(label, []).append(worth)
        return {label: own * (searches if label.startswith("search") else 1) for label, own in each.items()}

    def fit(self, nfe: int) -> Passes:
        """Return one rollout on all calibration prompts."""
        return {FIT_PASS: [nfe * self.stages.total * self.branches]}

    def refinement(self, nfe: int, compared: int) -> Passes:
        """Return how a policy is refined and compared with what it was, on so many samples, if the effort has that."""
        prompts = effort(self.effort).refined(nfe, self.steps, self.stages.fit)
        fixed = self.engine is not None and self.engine.rule in FIXED_RULES
        if fixed or not prompts or not algorithm(self.search).arbitrated:
            return {}
        return {
            "refinement": [prompts * evaluations_of_refinement(nfe) * self.branches],
            COMPARED_PASS: [nfe * compared * self.branches],
        }

    def found(self, nfe: int, earlier: Sequence[int] = ()) -> Passes:
        """Return the passes in which the policy of one budget is found, after those of `earlier` ones."""
        stages, given = self.stages.of(self.search), effort(self.effort)
        candidate = nfe * self.branches
        passes = self._searches(nfe, earlier)
        if stages.races:
            passes["race"] = [self._new(nfe, earlier) * given.finalists * candidate * stages.fit]
        if self.align:
            training = training_cost(self.search, self.effort, nfe, stages, self.branches)
            passes["align"] = [training.time * self.branches]
        compared = stages.judge or stages.fit
        if self.align and stages.judge:
            compared = paired(given, stages).judging
        refinement = self.refinement(nfe, compared)
        passes = added(passes, refinement)
        if not stages.judge:
            return passes
        judges = stages.judge
        if self.align:
            samples, full = paired(given, stages), self.steps * self.branches
            passes["paired"] = [
                full * (samples.training - stages.fit),
                full * (samples.judging - stages.judge),
            ]
            judges = samples.judging
        passes["arbitration"] = [stages.finalists(given) * candidate * judges]
        return passes if refinement else added(passes, self.fit(nfe))

    def report(self, budgets: Sequence[int], policies: int = 3) -> Passes:
        """Return the full run and the policies of each budget on the held-out prompts, and their frames."""
        passes: Passes = {"held-out full": [self.steps * self.held_out * self.branches]}
        for nfe in budgets:
            passes[f"held-out {nfe} "] = [nfe * self.held_out * self.branches] * policies
        if self.frames:
            passes["held-out frames"] = [(policies * len(budgets) + 1) * self.held_out * OF_FRAMES]
        return passes

    def _searches(self, nfe: int, earlier: Sequence[int]) -> Passes:
        """Return the search, and where there is a proxy the one after it: what others have not computed of each."""
        space, rollouts = self._given(nfe), effort(self.effort).share(nfe)
        samples = self._new(nfe, earlier) * self.stages.of(self.search).screen * self.branches
        searched = samples * self._computed(nfe)
        if self.proxy is None:
            return {f"search ({self.search})": [searched]}
        after = (
            samples * dry_run(space, AFTER, min(AFTER_PROXY, rollouts), groups=self.stages.groups).expected
        )
        return added({f"search ({self.search})": [searched * self.proxy]}, {f"search ({AFTER})": [after]})

    def _new(self, nfe: int, earlier: Sequence[int]) -> float:
        """Return which share of what a budget rolls out those before it have not."""
        computed = {other: self._computed(other) for other in earlier}
        return unshared(self._given(nfe), self._computed(nfe), computed)

    def _given(self, nfe: int) -> Given:
        space = given_to(self.profile, nfe, self.steps, self.engine)
        return space if self.mask is None else space._replace(published_masks=(self.mask.compute_steps,))

    def _computed(self, nfe: int) -> float:
        """Return the steps that a search computes for one sample and branch, where it is alone."""
        groups = self.stages.of(self.search).groups
        count = dry_run(self._given(nfe), self.search, effort(self.effort).share(nfe), groups=groups).expected
        return count * (OF_MADE_UP if self.search == "paper" else 1.0)


def added(*parts: Mapping[str, Sequence[float]]) -> Passes:
    """Return the passes of all parts, one part after the other."""
    passes: Passes = {}
    for part in parts:
        for label, forwards in part.items():
            passes.setdefault(label, []).extend(forwards)
    return passes
