"""The heart of a compile on toys: what is chosen, on which prompts, at which cost."""

import math
import sys
from dataclasses import replace

import pytest
import torch

import budc.compiler.selection.alignment as alignment
import budc.compiler.selection.finder as find
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.linear_form import linear_form
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.selection.arbitration import Arbiter
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.study import FINALISTS
from budc.compiler.selection.task import SEARCH_SHARE, NoiseSchedule
from budc.compiler.storage.journal import Journal
from budc.schema.errors import UsageError


@pytest.fixture
def found(tmp_path):
    """Find a policy in a journal of its own: (outcome, finder, records of the journal)."""
    made = []

    def found(task):
        made.append(1)
        with Journal(tmp_path / f"find {len(made)}", "find") as journal:
            finder = Finder(task, journal)
            return finder.find(task), finder, dict(journal.records)

    return found


def loss(finder, outcome, first=0, last=None):
    """The geometric mean of the latent errors of an outcome, followed on its schedule; its logarithm."""
    task = finder.task
    last = last or len(task.conditions)
    form = linear_form(task.scheduler, outcome.schedule.sigmas, outcome.schedule.timesteps)
    network = BatchedDenoiser(task.denoiser, task.conditions.part(first, last))
    return objective(
        "log-mean",
        latent_errors(rollout_policy(network, form, outcome.policy), finder.run.part(first, last).latents),
    )


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_the_default_loses_far_less_than_the_reference_search(task, found, solver):
    losses = {}
    for search in ("joint", "paper", "uniform"):
        outcome, finder, _ = found(task(10, 4, solver=solver, search=search))
        assert forwards_per_sample(outcome.policy) == 4 * 2
        losses[search] = loss(finder, outcome)
    assert losses["joint"] < losses["paper"] - math.log(3)
    assert losses["paper"] < losses["uniform"]


def test_finalists_are_arbitrated_on_prompts_that_the_search_has_not_seen(task, found, monkeypatch):
    """Of two finalists, the one with the greater search loss is taken where the other prompts prefer it."""
    wanted = task(8, 3, samples=8)
    seen = round(SEARCH_SHARE * 8)
    tree_sizes = []
    tree = find.Tree
    monkeypatch.setattr(
        find, "Tree", lambda network, *rest: tree_sizes.append(network.samples) or tree(network, *rest)
    )
    outcome, _finder, records = found(wanted)
    assert tree_sizes[0] == seen == 6
    arbitrated = {key: value for key, value in records.items() if key.startswith("arbitration")}
    assert len(arbitrated) == FINALISTS == 4
    best = min(arbitrated, key=arbitrated.get)
    steps = [step for step, computed in enumerate(outcome.policy.branches[0].mask) if computed]
    assert best.split()[3] == ",".join(map(str, steps))
    # Now the others are given the preference, one after another.
    judged = Arbiter.loss
    for place in range(1, 4):
        preferred = sorted(arbitrated, key=arbitrated.get)[place]

        def biased(self, label, policy, form, preferred=preferred):
            assert torch.equal(self.samples.conditions.noise, wanted.conditions.noise[seen:])
            value = judged(self, label, policy, form)
            return value - 100 if f"arbitration {label} on 2" == preferred else value

        monkeypatch.setattr(Arbiter, "loss", biased)
        other, _, _ = found(wanted)
        steps = [step for step, computed in enumerate(other.policy.branches[0].mask) if computed]
        assert preferred.split()[3] == ",".join(map(str, steps))


def test_arbitration_is_measured_on_the_last_quarter(task, found):
    outcome, _finder, records = found(task(8, 3, samples=8, search="anneal"))
    (value,) = [value for key, value in records.items() if key.startswith("arbitration")][:1]
    assert math.isfinite(value)
    assert outcome.notes[0].endswith("by arbitration on 2 other prompts")
    assert outcome.notes[1] == "coefficients fitted again on all 8 prompts"


def test_coefficients_of_all_prompts_are_kept_only_where_they_lose_less(task, found, monkeypatch):
    wanted = task(8, 3, samples=8)
    fitted = Finder.fitted
    kept, _, _ = found(wanted)
    monkeypatch.setattr(Finder, "fitted", lambda *given: (fitted(*given)[0], math.inf, 5))
    left, _, _ = found(wanted)
    assert "coefficients fitted again on all 8 prompts" in kept.notes
    assert "coefficients fitted again on all 8 prompts" not in left.notes
    assert left.policy.branches[0].mask == kept.policy.branches[0].mask
    assert left.policy != kept.policy


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(
    "asked", [{"align": True}, {"few_step_schedule": NoiseSchedule((1.0, 0.5, 0.0), (1000.0, 500.0))}]
)
def test_what_no_prompt_is_left_to_judge_is_refused_before_the_search(task, found, samples, asked):
    wanted = task(8, 2, samples=samples, **asked)
    with pytest.raises(UsageError, match=f"{samples} calibration prompts leave none"):
        found(wanted)
    assert sum(wanted.denoiser.calls) == 2 * 8 * samples, "nothing but the full run was made"


def test_reference_searches_see_all_prompts_and_are_not_arbitrated(task, found):
    outcome, _finder, records = found(task(6, 2, samples=4, search="paper"))
    assert not [key for key in records if key.startswith("arbitration")]
    assert outcome.notes == ()
    assert outcome.candidates == 5
    assert outcome.forwards == 4 * 2 * (6 + 1 + 5)
    assert outcome.loss == pytest.approx(
        min(value["loss"] for key, value in records.items() if key.startswith("paper"))
    )


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("align", [False, True])
def test_one_seed_gives_one_outcome(task, found, monkeypatch, align, separate):
    monkeypatch.setattr(alignment, "EPOCHS", (0.0, 2))
    wanted = task(7, 3, align=align, separate=separate)
    first, _, records = found(wanted)
    second, _, again = found(wanted)
    assert first == second
    assert records == again


def test_every_forward_is_counted(task, found):
    """What the denoiser really did, sample by sample, is what is said: full run, search, arbitration, refit."""
    wanted = task(8, 3)
    outcome, _, _ = found(wanted)
    assert outcome.forwards == sum(wanted.denoiser.calls)


def test_a_sweep_shares_the_full_run(task, toys, tmp_path):
    wanted = task(8, 2, samples=8)
    denoiser = wanted.denoiser
    with Journal(tmp_path / "sweep", "sweep") as journal:
        finder = Finder(wanted, journal)
        assert sum(denoiser.calls) == 8 * 8 * 2
        family = [finder.find(replace(wanted, nfe=nfe)) for nfe in (2, 3, 5)]
    spent = sum(denoiser.calls)
    alone = []
    for nfe, outcome in zip((2, 3, 5), family, strict=True):
        single = replace(wanted, nfe=nfe, denoiser=toys.toy())
        with Journal(tmp_path / f"alone {nfe}", "alone") as journal:
            expected = Finder(single, journal).find(single)
        assert (outcome.policy, outcome.loss) == (expected.policy, expected.loss)
        alone.append(sum(single.denoiser.calls))
    assert spent <= sum(alone) - 2 * 8 * 8 * 2, "two of three full runs are saved at least"
    losses = [loss(finder, outcome) for outcome in family]
    assert losses[2] < losses[0]


def test_few_steps_win_where_nothing_can_be_reused(task, found, toys):
    sigmas = [1 - step / 12 for step in range(12)] + [0.0]
    many = NoiseSchedule(tuple(sigmas), tuple(1000 * sigma for sigma in sigmas[:-1]))
    few = NoiseSchedule((1.0, 0.75, 0.5, 0.25, 0.0), (950.0, 700.0, 450.0, 200.0))
    wanted = task(
        nfe=4, denoiser=toys.glitches(), schedule=many, conditions=toys.conditions(8, ("only",), (12,))
    )
    cached, finder, _ = found(wanted)
    outcome, _, _records = found(replace(wanted, few_step_schedule=few))
    assert (cached.schedule, outcome.schedule) == (many, few)
    assert sum(outcome.policy.branches[0].mask) == 4
    assert "4 steps by arbitration" in outcome.notes
    assert loss(finder, outcome) < loss(finder, cached) - math.log(100)
    assert outcome.candidates == cached.candidates > 0
    # The full run was preferred to few steps of a schedule that is wrong.
    wrong = NoiseSchedule((1.0, 0.9, 0.8, 0.7, 0.0), few.timesteps)
    worse = toys.toy()
    other, _, _ = found(task(8, 4, few_step_schedule=wrong, denoiser=worse))
    assert other.schedule.steps == 8
    assert "8 steps by arbitration" in other.notes


def test_separate_branches_end_on_spaces_that_are_searched_through(task, found):
    for nfe in (1, 2, 3, 4):
        outcome, _, _ = found(task(4, nfe, samples=4, separate=True))
        assert forwards_per_sample(outcome.policy) == 2 * nfe


def test_alignment_is_kept_where_other_prompts_gain(task, found, toys, tmp_path):
    plain, finder, _ = found(task(8, 3, samples=12))
    aligned, _, _records = found(task(8, 3, samples=12, align=True))
    assert aligned.aligned
    assert "alignment kept" in aligned.notes
    assert aligned.schedule.sigmas != plain.schedule.sigmas
    assert (aligned.schedule.sigmas[0], aligned.schedule.sigmas[-1]) == pytest.approx(
        (plain.schedule.sigmas[0], 0.0)
    )
    assert aligned.forwards > plain.forwards
    fresh = replace(finder.task, conditions=toys.conditions(48, seed=1))
    with Journal(tmp_path / "fresh", "fresh") as journal:
        others = Finder(fresh, journal)
    assert loss(others, aligned) < loss(others, plain)


def test_alignment_learns_from_and_is_judged_by_pairings_of_their_own(task, found, monkeypatch):
    monkeypatch.setattr(alignment, "EPOCHS", (0.0, 1))
    lessons, refine = [], alignment.refine
    monkeypatch.setattr(
        alignment, "refine", lambda *given, **options: lessons.append(given[2:4]) or refine(*given, **options)
    )
    wanted = task(8, 3, samples=12, align=True)
    found(wanted)
    ((learned, judged),) = lessons
    assert (len(learned), len(judged)) == (3 * 9, 3 * 3)
    own = {tuple(noise.flatten().tolist()) for noise in wanted.conditions.noise[9:]}
    assert {tuple(noise.flatten().tolist()) for noise in judged.conditions.noise} == own
    assert not own & {tuple(noise.flatten().tolist()) for noise in learned.conditions.noise}


@pytest.mark.parametrize(("nfe", "epochs"), [(2, 3), (10, 4), (14, 6)])
def test_alignment_of_more_evaluations_trains_longer(task, found, monkeypatch, nfe, epochs):
    asked, refine = [], alignment.refine
    monkeypatch.setattr(
        alignment, "refine", lambda *given, **options: asked.append(options) or refine(*given, **options)
    )
    monkeypatch.setattr(sys.modules["budc.compiler.search.joint"], "ROLLOUT_LIMIT", (0.0, 2.0, 2.0))
    found(task(16, nfe, samples=6, align=True))
    (options,) = asked
    assert (options["epochs"], options["batch"]) == (epochs, 2)


def test_alignment_that_gains_nothing_is_thrown_away(task, found, monkeypatch):
    plain, _, _ = found(task(8, 3))

    def worse(policy, parameters):
        made = aligned(policy, parameters)
        return made[0], replace_sigmas(made[1])

    def replace_sigmas(schedule):
        middle = tuple(sigma**3 for sigma in schedule.sigmas[1:-1])
        return NoiseSchedule((schedule.sigmas[0], *middle, schedule.sigmas[-1]), schedule.timesteps)

    aligned = alignment.aligned
    monkeypatch.setattr(alignment, "aligned", worse)
    outcome, _, _ = found(task(8, 3, align=True))
    assert not outcome.aligned
    assert outcome.schedule == plain.schedule
    assert outcome.policy == plain.policy
    assert "alignment gained nothing on other prompts" in outcome.notes


def test_a_full_budget_is_the_full_run(task, found):
    outcome, finder, _ = found(task(5, 5))
    assert sum(outcome.policy.branches[0].mask) == 5
    errors = loss(finder, outcome)
    assert errors < math.log(1e-12)
    assert torch.isfinite(torch.tensor(outcome.loss))
