"""Replay: what is measured again, and how far it may be from what was reported."""

import msgspec
import pytest
from format_additions import ADDED, with_negative

import budc.compiler.evaluation.replay as replaying
from budc.compiler.evaluation.reference import prompt_set
from budc.compiler.evaluation.replay import Replayed, ReplayRequest, check, replay
from budc.compiler.evaluation.tolerance import agreed_tolerance
from budc.policies.profile import load_profile, read_prompts
from budc.policies.samples import HELD_OUT_SEED, samples_of
from budc.runtimes.admission.additions import REPLAY, RUNS
from budc.schema.errors import QualityMismatch, UnsupportedModel, UnsupportedVersion, UsageError
from budc.schema.policy import REPLAY_TOLERANCE, Metric, Shape

REPORTED = Metric(
    name="latent-mse", mean=1, standard_error=0.1, worst=4, geometric_mean=0.8, p95=3, samples=16
)


@pytest.fixture
def document(make_document):
    """A policy whose report says that it was measured on the first two held-out prompts of the nano profile."""
    document, profile = make_document(), load_profile("wan2.1-nano")
    prompts = read_prompts(profile.prompts.held_out, 2)
    return msgspec.structs.replace(
        document,
        model=msgspec.structs.replace(document.model, profile=profile.name),
        shape=Shape(height=48, width=80, frames=5, dtype="bfloat16", text_tokens=17),
        quality=msgspec.structs.replace(
            document.quality,
            held_out=prompt_set(samples_of(prompts, profile.prompts.negative, HELD_OUT_SEED)),
        ),
    )


class Loaded(Exception):  # noqa: N818
    """Carries the profile that a model was to be loaded for."""


def test_the_model_is_loaded_as_it_was_measured(document, tmp_path, monkeypatch):
    def load(profile, folder, device):
        raise Loaded(profile)

    monkeypatch.setattr(replaying, "load_model", load)
    with pytest.raises(Loaded) as loaded:
        replay(ReplayRequest(document, tmp_path))
    (profile,) = loaded.value.args
    assert [getattr(profile, field) for field in Shape.__struct_fields__] == [48, 80, 5, "bfloat16", 17]
    unsaid = msgspec.structs.replace(
        document, shape=msgspec.structs.replace(document.shape, text_tokens=None)
    )
    with pytest.raises(Loaded) as loaded:
        replay(ReplayRequest(unsaid, tmp_path))
    assert loaded.value.args[0].text_tokens == load_profile("wan2.1-nano").text_tokens


@pytest.mark.parametrize(
    "name", [name for name, (_, added) in ADDED.items() if not set(added) <= RUNS[REPLAY]]
)
def test_what_cannot_be_computed_here_is_not_replayed(document, tmp_path, name):
    change, added = ADDED[name]
    missing = next(item for item in added if item not in RUNS[REPLAY]).replace(".", r"\.")
    with pytest.raises((UnsupportedVersion, UnsupportedModel), match=missing):
        replay(ReplayRequest(change(document), tmp_path))


def test_the_policy_s_negative_prompt_is_replayed(document, tmp_path, monkeypatch):
    def load(profile, folder, device):
        raise Loaded(profile)

    monkeypatch.setattr(replaying, "load_model", load)
    prompts = read_prompts(load_profile("wan2.1-nano").prompts.held_out, 2)
    held_out = prompt_set(samples_of(prompts, "dark", HELD_OUT_SEED))
    dark = msgspec.structs.replace(document.quality, held_out=held_out)
    with pytest.raises(Loaded) as loaded:
        replay(
            ReplayRequest(with_negative(msgspec.structs.replace(document, quality=dark), "dark"), tmp_path)
        )
    assert loaded.value.args[0].prompts.negative == "dark"
    with pytest.raises(UnsupportedModel, match=r"measured on other prompts than wan2\.1-nano has here"):
        replay(ReplayRequest(with_negative(document, "dark"), tmp_path))


@pytest.mark.parametrize("field", ["mean", "worst", "geometric_mean", "p95"])
def test_each_figure_of_all_samples_agrees_to_the_tolerance(field):
    for factor, agrees in ((1.04, True), (0.97, True), (1.06, False), (0.94, False)):
        measured = msgspec.structs.replace(REPORTED, **{field: factor * getattr(REPORTED, field)})
        if agrees:
            check(Replayed(REPORTED, measured), 0.05, whole=True)
        with pytest.raises(QualityMismatch, match=f"the report says {field}"):
            check(Replayed(REPORTED, measured), 0.05 if not agrees else 0.02, whole=True)


def test_fewer_samples_are_held_to_the_tolerance_too():
    few = msgspec.structs.replace(REPORTED, samples=4)
    for worst, tolerance in ((4.1, 0.02), (4.3, 0.05)):
        with pytest.raises(QualityMismatch, match="no sample is worse than 4"):
            check(Replayed(REPORTED, msgspec.structs.replace(few, worst=worst)), tolerance, whole=False)
    check(Replayed(REPORTED, msgspec.structs.replace(few, worst=4.1)), 0.05, whole=False)
    # Four standard errors of four samples are 0.8, and the tolerance comes on top.
    check(Replayed(REPORTED, msgspec.structs.replace(few, mean=1.84)), 0.05, whole=False)
    with pytest.raises(QualityMismatch, match=r"mean 1, 4 samples give 1\.84"):
        check(Replayed(REPORTED, msgspec.structs.replace(few, mean=1.84)), 0.02, whole=False)


def test_the_report_states_the_tolerance_and_only_a_stricter_one_may_be_asked_for(document):
    silent = document.quality
    stated = msgspec.structs.replace(silent, replay_tolerance=0.05)
    assert agreed_tolerance(silent) == REPLAY_TOLERANCE == 0.02
    assert agreed_tolerance(stated) == 0.05
    assert agreed_tolerance(stated, 0.01) == agreed_tolerance(silent, 0.01) == 0.01
    for report, laxer in ((silent, 0.021), (stated, 0.051)):
        with pytest.raises(UsageError, match=r"laxer than the 0\.0"):
            agreed_tolerance(report, laxer)
