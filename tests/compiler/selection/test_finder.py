"""From a task to its policy, on toys: what is chosen, on which prompts, at which cost."""

import math
import sys
from dataclasses import replace
from itertools import count

import pytest
import torch

import budc.compiler.selection.alignment as alignment
import budc.compiler.selection.calibration as calibration_module
import budc.compiler.selection.settings as settings_module
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.rollouts.metrics import latent_errors, objective
from budc.compiler.rollouts.policies import forwards_per_sample
from budc.compiler.rollouts.policy import rollout_policy
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.arbitration import Arbiter
from budc.compiler.selection.calibration import Calibration, Fit
from budc.compiler.selection.effort import FINALISTS
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.stages import SEARCH_SHARE
from budc.compiler.selection.task import ForwardCount
from budc.compiler.storage.journal import Journal
from budc.compiler.training import schedule_alignment, second_stage
from budc.schema.errors import UsageError


@pytest.fixture
def find(tmp_path):
    """Find a policy in a journal of its own: (result, finder, records of the journal)."""
    numbers = count()

    def find(task):
        with Journal(tmp_path / f"find {next(numbers)}", "find") as journal:
            finder = Finder(Calibration(task, journal))
            return finder.find(task), finder, dict(journal.records)

    return find


def loss(finder, outcome, first=0, last=None):
    """The geometric mean of the latent errors of an outcome, followed on its schedule; its logarithm."""
    task = finder.task
    last = last or len(task.conditions)
    form = outcome.schedule.linear_form()
    network = BatchedDenoiser(task.denoiser, finder.calibration.conditions.part(first, last))
    return objective(
        "log-mean",
        latent_errors(
            rollout_policy(network, form, outcome.policy), finder.calibration.run.part(first, last).latents
        ),
    )


@pytest.mark.parametrize("solver", ["euler", "unipc"])
def test_the_default_loses_far_less_than_the_reference_search(task, find, solver):
    losses = {}
    for search in ("joint", "paper", "uniform"):
        outcome, finder, _ = find(task(10, 4, solver=solver, search=search))
        assert forwards_per_sample(outcome.policy) == 4 * 2
        losses[search] = loss(finder, outcome)
    assert losses["joint"] < losses["paper"] - math.log(3)
    assert losses["paper"] < losses["uniform"]


def test_finalists_are_arbitrated_on_prompts_that_the_search_has_not_seen(task, find, monkeypatch):
    """Of two finalists, the one with the greater search loss is taken where the other prompts prefer it."""
    wanted = task(8, 3, samples=8)
    seen = round(SEARCH_SHARE * 8)
    tree_sizes = []
    tree = calibration_module.Tree
    monkeypatch.setattr(
        calibration_module,
        "Tree",
        lambda network, *rest, **options: (
            tree_sizes.append(network.samples) or tree(network, *rest, **options)
        ),
    )
    outcome, _finder, records = find(wanted)
    assert tree_sizes[0] == seen == 6
    arbitrated = {key: value for key, value in records.items() if key.startswith("arbitration")}
    assert len(arbitrated) == FINALISTS == 4
    best = min(arbitrated, key=arbitrated.get)
    steps = [step for step, computed in enumerate(outcome.policy.branches[0].mask) if computed]
    assert best.split()[3] == ",".join(map(str, steps))
    # Now the others are given the preference, one after another.
    measured = Arbiter.loss
    for rank in (1, 3):
        preferred = sorted(arbitrated, key=arbitrated.get)[rank]

        def biased(self, label, policy, form, preferred=preferred):
            assert torch.equal(self.samples.conditions.noise, wanted.conditions.noise[seen:])
            value = measured(self, label, policy, form)
            return value - 100 if f"arbitration {label} on 2" == preferred else value

        monkeypatch.setattr(Arbiter, "loss", biased)
        other, _, _ = find(wanted)
        steps = [step for step, computed in enumerate(other.policy.branches[0].mask) if computed]
        assert preferred.split()[3] == ",".join(map(str, steps))


def test_arbitration_is_measured_on_the_last_quarter(task, find):
    outcome, _finder, records = find(task(8, 3, samples=8, search="anneal"))
    (value,) = [value for key, value in records.items() if key.startswith("arbitration")][:1]
    assert math.isfinite(value)
    assert outcome.notes[0].endswith("by arbitration on 2 other prompts")
    assert outcome.notes[1] == "coefficients fitted again on all 8 prompts"


def test_coefficients_of_all_prompts_are_kept_only_where_they_lose_less(task, find, monkeypatch):
    wanted = task(8, 3, samples=8)
    fitted = Calibration.fitted
    refitted, _, _ = find(wanted)
    monkeypatch.setattr(Calibration, "fitted", lambda *given: Fit(fitted(*given).policy, math.inf, 5))
    left, _, _ = find(wanted)
    assert "coefficients fitted again on all 8 prompts" in refitted.notes
    assert "coefficients fitted again on all 8 prompts" not in left.notes
    assert left.policy.branches[0].mask == refitted.policy.branches[0].mask
    assert left.policy != refitted.policy


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize(
    "asked", [{"align": True}, {"few_step_schedule": NoiseSchedule(None, (1.0, 0.5, 0.0), (1000.0, 500.0))}]
)
def test_what_no_prompt_is_left_to_arbiter_is_refused_before_any_forward(task, find, samples, asked):
    wanted = task(8, 2, samples=samples, **asked)
    with pytest.raises(UsageError, match=f"{samples} calibration prompts leave none"):
        find(wanted)
    assert not wanted.denoiser.calls


def test_reference_searches_see_all_prompts_and_are_not_arbitrated(task, find):
    outcome, _finder, records = find(task(6, 2, samples=4, search="paper"))
    assert not [key for key in records if key.startswith("arbitration")]
    assert outcome.notes == ()
    assert outcome.candidates == 5
    assert outcome.forwards == ForwardCount(reference=4 * 2 * 6, search=4 * 2 * (1 + 5))
    assert outcome.loss == pytest.approx(
        min(value["loss"] for key, value in records.items() if key.startswith("paper"))
    )


@pytest.mark.usefixtures("short_search")
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("align", [False, True])
def test_one_seed_gives_one_outcome(task, find, monkeypatch, align, separate):
    monkeypatch.setattr(alignment, "epochs", lambda nfe, given: 2)
    wanted = task(7, 3, align=align, separate=separate)
    first, _, records = find(wanted)
    second, _, again = find(wanted)
    assert first == second
    assert records == again


def test_every_forward_is_counted(task, find):
    """What the denoiser really did, sample by sample, is what is said: reference run, search, arbitration, refit."""
    wanted = task(8, 3)
    outcome, _, _ = find(wanted)
    forwards = outcome.forwards
    assert forwards.total == sum(wanted.denoiser.calls)
    assert forwards.reference == 2 * 8 * 8
    assert forwards.arbitration == FINALISTS * 2 * 3 * 2
    assert forwards.refit == 2 * 3 * 8
    assert forwards.alignment == 0


def test_what_several_budgets_share_is_not_a_budgets_own():
    spent = ForwardCount(reference=1, search=2, alignment=4, paired=8, refit=16, proxy=50, proxy_reference=20)
    assert spent.total == 31
    assert spent.own == ForwardCount(search=2, alignment=4, refit=16, proxy=30)


def test_a_sweep_shares_the_full_run(task, toys, tmp_path):
    wanted = task(8, 2, samples=8)
    denoiser = wanted.denoiser
    with Journal(tmp_path / "sweep", "sweep") as journal:
        finder = Finder(Calibration(wanted, journal))
        assert sum(denoiser.calls) == 8 * 8 * 2
        family = [finder.find(replace(wanted, nfe=nfe)) for nfe in (2, 3, 5)]
    spent = sum(denoiser.calls)
    alone = []
    for nfe, outcome in zip((2, 3, 5), family, strict=True):
        single = replace(wanted, nfe=nfe, denoiser=toys.toy())
        with Journal(tmp_path / f"alone {nfe}", "alone") as journal:
            expected = Finder(Calibration(single, journal)).find(single)
        assert (outcome.policy, outcome.loss) == (expected.policy, expected.loss)
        alone.append(sum(single.denoiser.calls))
    assert spent <= sum(alone) - 2 * 8 * 8 * 2, "two of three full runs are saved at least"
    losses = [loss(finder, outcome) for outcome in family]
    assert losses[2] < losses[0]


@pytest.mark.slow
def test_few_steps_win_where_nothing_can_be_reused(task, find, toys):
    sigmas = [1 - step / 12 for step in range(12)] + [0.0]
    scheduler = toys.schedulers["euler"]()
    full = NoiseSchedule.of(scheduler, sigmas, [1000 * sigma for sigma in sigmas[:-1]])
    few = NoiseSchedule(scheduler, (1.0, 0.75, 0.5, 0.25, 0.0), (950.0, 700.0, 450.0, 200.0))
    wanted = task(
        nfe=4, denoiser=toys.glitches(), schedule=full, conditions=toys.conditions(8, ("only",), (12,))
    )
    cached, finder, _ = find(wanted)
    outcome, _, _records = find(replace(wanted, few_step_schedule=few))
    assert (cached.schedule, outcome.schedule) == (full, few)
    assert sum(outcome.policy.branches[0].mask) == 4
    assert "4 steps by arbitration" in outcome.notes
    assert loss(finder, outcome) < loss(finder, cached) - math.log(100)
    assert outcome.candidates == cached.candidates > 0
    # The full run was preferred to few steps of a schedule that is wrong.
    wrong = NoiseSchedule(scheduler, (1.0, 0.9, 0.8, 0.7, 0.0), few.timesteps)
    worse = toys.toy()
    other, _, _ = find(task(8, 4, few_step_schedule=wrong, denoiser=worse))
    assert other.schedule.steps == 8
    assert "8 steps by arbitration" in other.notes


def test_separate_branches_end_on_spaces_that_are_searched_through(task, find):
    for nfe in (1, 2, 3, 4):
        outcome, _, _ = find(task(4, nfe, samples=4, separate=True))
        assert forwards_per_sample(outcome.policy) == 2 * nfe


def test_alignment_is_kept_where_other_prompts_gain(task, find, toys, tmp_path):
    shape = (16, 16)
    plain, finder, _ = find(task(8, 3, samples=10, shape=shape))
    aligned, _, _records = find(task(8, 3, samples=10, shape=shape, align=True))
    assert aligned.aligned
    assert "alignment kept" in aligned.notes
    assert aligned.schedule.sigmas != plain.schedule.sigmas
    assert (aligned.schedule.sigmas[0], aligned.schedule.sigmas[-1]) == pytest.approx(
        (plain.schedule.sigmas[0], 0.0)
    )
    assert aligned.forwards.alignment > 0
    assert aligned.forwards.total > plain.forwards.total
    fresh = replace(finder.task, conditions=toys.conditions(48, shape=shape, seed=1))
    with Journal(tmp_path / "fresh", "fresh") as journal:
        others = Finder(Calibration(fresh, journal))
    assert loss(others, aligned) < loss(others, plain)


def test_the_paper_s_second_stage_trains_sigmas_and_is_not_judged(task, find, monkeypatch):
    short = second_stage.Configuration(samples=12, batch=6, clip=0.2)
    for module in (schedule_alignment, settings_module):
        monkeypatch.setattr(module, "configuration", lambda branches: short)
    plain, _, _ = find(task(6, 3, samples=6, search="paper"))
    outcome, _, _ = find(task(6, 3, samples=6, search="paper", align=True, train="sigmas"))
    assert outcome.policy == plain.policy
    assert (outcome.aligned, plain.aligned) == (True, False)
    assert outcome.schedule.sigmas != plain.schedule.sigmas
    # Two epochs of six prompts, two branches, a backward counted as two forwards.
    assert outcome.forwards == plain.forwards + ForwardCount(alignment=2 * 6 * 3 * 2 * (1 + 2))
    assert "sigmas trained on 6 prompts, and judged by no others" in outcome.notes
    assert (outcome.settings["epochs"], outcome.settings["trained"]) == (2, "sigmas")


@pytest.mark.parametrize("train", ["sigmas", "coefficients"])
def test_an_alignment_trains_what_it_is_told_to(task, find, monkeypatch, train):
    monkeypatch.setattr(alignment, "epochs", lambda nfe, given: 1)
    groups, train_ = [], alignment.train
    monkeypatch.setattr(
        alignment, "train", lambda *given: groups.append(set(given[1].groups)) or train_(*given)
    )
    outcome, _, _ = find(task(6, 3, samples=6, align=True, train=train))
    assert groups == [{train}]
    assert outcome.settings["trained"] == train


def test_alignment_trains_on_and_is_arbitrated_by_pairings_of_their_own(task, find, monkeypatch):
    monkeypatch.setattr(alignment, "epochs", lambda nfe, given: 1)
    trained_on, train = [], alignment.train
    monkeypatch.setattr(
        alignment,
        "train",
        lambda *given, **options: trained_on.append(given[2:4]) or train(*given, **options),
    )
    wanted = task(8, 3, samples=12, align=True)
    find(wanted)
    ((trained, validated),) = trained_on
    assert (len(trained), len(validated)) == (3 * 9, 2 * 3)
    own = {tuple(noise.flatten().tolist()) for noise in wanted.conditions.noise[9:]}
    assert {tuple(noise.flatten().tolist()) for noise in validated.conditions.noise} == own
    assert not own & {tuple(noise.flatten().tolist()) for noise in trained.conditions.noise}


@pytest.mark.parametrize(("nfe", "epochs"), [(2, 2), (10, 3), (15, 4), (16, 4)])
def test_alignment_of_more_evaluations_trains_longer(task, find, monkeypatch, nfe, epochs):
    class TrainingBegins(Exception):  # noqa: N818 (no error)
        pass

    def train(*given):
        raise TrainingBegins(given[4])

    monkeypatch.setattr(alignment, "train", train)
    monkeypatch.setattr(sys.modules["budc.compiler.search.joint"], "ROLLOUT_LIMIT", (0.0, 2.0, 2.0))
    with pytest.raises(TrainingBegins) as begun:
        find(task(16, nfe, samples=6, align=True))
    (settings,) = begun.value.args
    assert (settings.epochs, settings.batch) == (epochs, 2)


@pytest.mark.slow
def test_alignment_that_gains_nothing_is_thrown_away(task, find, monkeypatch):
    plain, _, _ = find(task(8, 3))

    def worse(policy, parameters):
        trained, schedule = aligned(policy, parameters)
        return trained, replace_sigmas(schedule)

    def replace_sigmas(schedule):
        middle = tuple(sigma**3 for sigma in schedule.sigmas[1:-1])
        return replace(schedule, sigmas=(schedule.sigmas[0], *middle, schedule.sigmas[-1]))

    aligned = alignment.aligned
    monkeypatch.setattr(alignment, "aligned", worse)
    outcome, _, _ = find(task(8, 3, align=True))
    assert not outcome.aligned
    assert outcome.schedule == plain.schedule
    assert outcome.policy == plain.policy
    assert "alignment gained nothing on other prompts" in outcome.notes


@pytest.mark.parametrize("samples", [8, 16])
def test_a_budget_of_every_step_is_the_reference_run(task, find, samples):
    """Sixteen prompts are enough to refine coefficients on, where there are some."""
    outcome, finder, _ = find(task(5, 5, samples=samples))
    assert outcome.forwards.refinement == 0
    assert sum(outcome.policy.branches[0].mask) == 5
    errors = loss(finder, outcome)
    assert errors < math.log(1e-12)
    assert torch.isfinite(torch.tensor(outcome.loss))
