import pytest

from budc.compiler.metrics import latent_errors
from budc.compiler.rollout import Roller, shared_policy
from budc.compiler.search import Space
from budc.compiler.study import search
from budc.policies.profile import SearchDefaults
from budc.schema.errors import CompileError

SPACE = Space(
    steps=6,
    nfe=2,
    defaults=SearchDefaults(temperature_start=0.1, temperature_end=1e-4, protected_fraction=0.3),
)


def test_every_candidate_is_scored_once_and_the_winner_is_the_best(roller, sampler, reference, journal):
    before = set(journal.records)
    found = search("paper", SPACE, roller, sampler, reference, journal, seed=0)
    scored = {key: value for key, value in journal.records.items() if key not in before}
    # Two computed steps of six, the first of them fixed: five masks.
    assert set(scored) == {f"0,{step}" for step in range(1, 6)}
    assert found.candidates == 5
    assert found.loss == min(scored.values())
    assert found.forwards == 5 * 2 * 2 * len(reference.conditions)
    policy = shared_policy(found.candidate.mask, found.candidate.predictor, ("cond", "uncond"))
    errors = latent_errors(roller.roll(policy, sampler, reference.conditions), reference.latents)
    assert found.loss == pytest.approx(sum(errors) / len(errors), rel=1e-6)


def test_a_resumed_search_scores_nothing_again(roller, sampler, reference, journal, monkeypatch):
    found = search("paper", SPACE, roller, sampler, reference, journal, seed=0)

    def never(*_):
        raise AssertionError("scored again")

    monkeypatch.setattr(Roller, "roll", never)
    assert search("paper", SPACE, roller, sampler, reference, journal, seed=0) == found


def test_latents_that_are_not_finite_are_an_error_that_names_the_candidate(
    roller, sampler, reference, journal, monkeypatch
):
    monkeypatch.setattr(Roller, "roll", lambda *_: reference.latents * float("nan"))
    with pytest.raises(CompileError, match="candidate 0,"):
        search("paper", SPACE, roller, sampler, reference, journal, seed=0)
    assert not any(key.startswith("0,") for key in journal.records)
