"""What a compile writes: a payload that is the same every time, whatever happened on the way."""

import functools
import json
import sys

import pytest
from flag_compiles import compiled
from lpips_weights import ALEX, ALEX_WIDTHS, random_layers, save_lpips

from budc.compiler.compile import compile_artifacts
from budc.compiler.policy_source import make_request
from budc.compiler.selection.effort import DEFAULT_EFFORT
from budc.schema.artifact import open_artifact
from budc.schema.policy import NegativePrompt
from budc.schema.signers import generate_key
from budc.schema.trust import Trust


def test_compile_signs_what_it_found_and_says_what_it_measured(flags, tmp_path):
    pair = generate_key()
    (tmp_path / "key").write_bytes(pair.private)
    (tmp_path / "pub").write_bytes(pair.public)
    written = compiled(flags | {"key": tmp_path / "key", "search": "paper"})
    artifact = open_artifact(flags["out"], Trust.from_pem(tmp_path / "pub"))
    document = artifact.document
    assert artifact.policy_id == written.policy_id
    assert document.policy.branches[0].step_mask().nfe == document.budget.nfe == 2
    assert document.search.candidates == 5
    # Full runs of 3 prompts, then one first evaluation that five candidates share and one more of each; two branches.
    assert document.search.forwards == 2 * 3 * (6 + 1 + 5)
    assert document.quality.objective == "latent-mse-mean"
    assert [(baseline.name, baseline.nfe) for baseline in document.quality.baselines] == [
        ("uniform", 2),
        ("fewer-steps", 2),
        ("full", 6),
    ]
    assert document.quality.held_out.size == 2
    assert document.quality.calibration.size == 3
    policy, uniform = document.quality.metrics[0], document.quality.baselines[0].metrics[0]
    assert policy.mean > 0
    assert uniform.mean > 0
    assert not list(tmp_path.glob(".policy*")), "the journal goes once the artifact stands"


def test_the_default_is_the_joint_search_with_fitted_coefficients(flags, tmp_path):
    trace = tmp_path / "trace.jsonl"
    document = compiled(flags | {"budget": "3", "trace": trace}).document
    scored = [json.loads(line) for line in trace.read_text().splitlines()]
    assert len(scored) == document.search.candidates
    assert [line["candidate"] for line in scored] == list(range(1, len(scored) + 1))
    assert scored[-1]["best"] == min(line["loss"] for line in scored)
    assert {line["nfe"] for line in scored} == {3} == {len(line["steps"][0]) for line in scored}
    spent = [line["forwards"] for line in scored]
    assert spent == sorted(spent)
    assert 0 < spent[-1] < document.search.forwards
    assert document.search.algorithm == "joint"
    assert document.quality.objective == "latent-mse-log-mean"
    assert document.search.settings["effort"] == DEFAULT_EFFORT
    rows = [row for branch in document.policy.branches for row in branch.predictor if row]
    assert any(row != [1.0] for row in rows)
    assert not document.search.settings["aligned"]
    uniform = document.quality.baselines[0].metrics[0]
    assert document.quality.metrics[0].geometric_mean < uniform.geometric_mean


def test_the_second_stage_minimises_lpips_where_it_is_told_to(flags, tmp_path, monkeypatch):
    import budc.compiler.selection.settings as settings
    from budc.compiler.training import schedule_alignment, second_stage

    short = second_stage.Configuration(samples=3, batch=1, clip=0.2)
    for module in (schedule_alignment, settings):
        monkeypatch.setattr(module, "configuration", lambda branches: short)
    save_lpips(tmp_path / "lpips", random_layers(ALEX, 0), ALEX_WIDTHS)
    flags = flags | {"search": "paper", "align": True, "train": "sigmas"}
    document = compiled(flags | {"loss": "lpips", "metric_weights": tmp_path}).document
    assert document.search.settings["loss"] == "lpips"
    assert document.search.settings["lossWeights"].startswith("sha256:")
    assert (
        "sigmas trained by lpips on 3 prompts, and judged by no others" in document.search.settings.values()
    )


def test_the_negative_prompt_is_recorded_and_decides(flags, tmp_path):
    flags = flags | {"search": "uniform"}
    plain = compiled(flags).document
    other = compiled(flags | {"negative": "a red circle", "out": tmp_path / "other.budc.json"}).document
    assert (plain.schema_version, other.schema_version) == ("1.1", "1.1")
    assert plain.sampler.negative_prompt == NegativePrompt(rule="fixed", text="")
    assert other.sampler.negative_prompt == NegativePrompt(rule="fixed", text="a red circle")
    for name in ("calibration", "held_out"):
        assert getattr(plain.quality, name).digest != getattr(other.quality, name).digest
    assert plain.quality.metrics != other.quality.metrics


@pytest.mark.usefixtures("short_search")
def test_same_inputs_same_payload(flags, tmp_path):
    first = compiled(flags)
    second = compiled(flags | {"out": tmp_path / "again.budc.json"})
    assert first.payload == second.payload
    third = compiled(flags | {"seed": 1, "out": tmp_path / "other.budc.json"})
    assert third.payload != first.payload


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"search": "paper"},
        {"align": True, "branches": "separate", "steps": "auto"},
    ],
    ids=["paper", "aligned"],
)
def test_interrupted_at_every_stage_it_ends_with_the_same_payload(flags, tmp_path, monkeypatch, more):
    import msgspec

    import budc.compiler.request as requests
    import budc.compiler.selection.alignment as alignment
    import budc.compiler.storage.journal as journal
    from budc.compiler.models.pipelines.wan import WanAdapter

    load, encode = requests.choose_model, WanAdapter.encode
    monkeypatch.setattr(requests, "choose_model", lambda name: msgspec.structs.replace(load(name), steps=4))
    monkeypatch.setattr(alignment, "epochs", lambda nfe, given: 1)
    # Text encoders are no part of what is resumed, and loading them takes most of the time.
    encoded = {}
    monkeypatch.setattr(
        WanAdapter,
        "encode",
        lambda self, folder, profile, samples, device: (
            encoded.get(samples)
            or encoded.setdefault(samples, encode(self, folder, profile, samples, device))
        ),
    )
    monkeypatch.setattr(sys.modules["budc.compiler.search.joint"], "ROLLOUT_LIMIT", (0.0, 2.0, 2.0))
    flags = flags | {"steps": 4} | more
    put, written = journal.Journal.put, []

    def stopping(self, key, value, stop=None):
        put(self, key, value)
        written.append(key)
        if len(written) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(journal.Journal, "put", stopping)
    trace, flags["trace"] = tmp_path / "undisturbed.jsonl", tmp_path / "trace.jsonl"
    expected = compiled(flags | {"out": tmp_path / "undisturbed.budc.json", "trace": trace}).payload
    stages = [key.split()[0] for key in written]
    assert {"calibration", "held-out", "frames", flags.get("search", "joint")} <= set(stages)
    assert "align" not in flags or {"arbitration", "align"} <= set(stages)
    # After the first and the last measurement of every stage.
    last = len(stages) - 1
    stops = [
        index + 1
        for index, stage in enumerate(stages)
        if index in (0, last) or stage != stages[index - 1] or stage != stages[index + 1]
    ]
    for stop in stops:
        written.clear()
        monkeypatch.setattr(journal.Journal, "put", functools.partialmethod(stopping, stop=stop))
        with pytest.raises(KeyboardInterrupt):
            compiled(flags)
        assert not flags["out"].exists()
        monkeypatch.setattr(journal.Journal, "put", put)
        assert compiled(flags).payload == expected, written[-1]
        assert flags["trace"].read_text() == trace.read_text()
        flags["out"].unlink()


@pytest.mark.slow
def test_a_sweep_is_a_family_that_shares_the_full_run(flags, tmp_path):
    family = tmp_path / "family"
    family.mkdir()
    flags = {key: value for key, value in flags.items() if key != "budget"}
    artifacts = compile_artifacts(make_request({}, flags | {"sweep": "2,2x,4", "out": family}).resolve())
    assert [artifact.document.budget.nfe for artifact in artifacts] == [2, 3, 4]
    assert [artifact.document.budget.requested for artifact in artifacts] == ["2", "2x", "4"]
    assert sorted(path.name for path in family.iterdir()) == [
        f"wan2.1-nano-nfe{nfe}.budc.json" for nfe in (2, 3, 4)
    ]
    with_more = [artifact.document.quality.metrics[0].geometric_mean for artifact in artifacts]
    assert with_more[2] < with_more[0]
