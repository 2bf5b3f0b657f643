"""Candidates of several groups of prompts, here and by workers."""

from budc.compiler.rollouts.forest import Forest
from budc.compiler.rollouts.workers import FittedCandidate
from budc.compiler.search import Candidate


def candidates(*groups):
    """Return a candidate for each group; the last computed step differs."""
    return [
        Candidate(Candidate.of(8, (0, 2, 4 + number)).masks, "tracked", "velocity", group)
        for number, group in enumerate(groups)
    ]


def test_a_candidate_is_rolled_out_on_the_prompts_of_its_group(bench):
    toy = bench(steps=8, samples=6)
    batch = candidates(1, 0, 1)
    rollouts = toy.forest(groups=2).roll_out(batch)
    for candidate, rollout in zip(batch, rollouts, strict=True):
        (alone,) = toy.forest(groups=2).trees[candidate.group].roll_out([candidate])
        assert rollout.errors == alone.errors
        assert rollout.rows == alone.rows
        assert len(rollout.errors) == 3
    # The third shares all but its last step with the first, and nothing with the second.
    assert [rollout.forwards for rollout in rollouts] == [3 * 2 * 3, 3 * 2 * 3, 2 * 3]


def test_workers_are_told_which_prompts(bench):
    told = []

    class Workers:
        def roll_out(self, spans, candidates):
            told.extend(zip(spans, candidates, strict=True))
            for position in reversed(range(len(candidates))):
                yield position, FittedCandidate((float(position),), ())

    here = bench(steps=8, samples=6).forest(groups=2)
    batch = candidates(1, 0, 1)
    rollouts = Forest(here.trees, here.spans, Workers()).roll_out(batch)
    assert told == list(zip([(3, 6), (0, 3), (3, 6)], batch, strict=True))
    assert [rollout.errors for rollout in rollouts] == [(0.0,), (1.0,), (2.0,)]
    assert [rollout.forwards for rollout in rollouts] == [18, 18, 6]
