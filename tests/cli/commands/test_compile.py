import re

import pytest
from progress_lines import begun

from budc.schema.artifact import open_artifact, read
from budc.schema.trust import Trust

torch = pytest.importorskip("torch")


def test_flags_override_the_source(compiled):
    artifact = open_artifact(compiled.path, Trust.from_pem(compiled.public))
    assert artifact.document.budget.requested == "3"
    assert artifact.document.sampler.steps == 6
    assert artifact.document.search.algorithm == "uniform"


def test_summary(compiled):
    artifact = open_artifact(compiled.path, Trust.from_pem(compiled.public))
    out = compiled.outcome.out
    for part in (str(compiled.path), artifact.policy_id, artifact.verified_by[0].fingerprint):
        assert part in out
    assert "█·█·█·" in out
    assert "3 held-out prompts" in out
    assert f"{artifact.document.search.forwards:,} transformer forwards" in out
    rows = [line.split()[0] for line in out.splitlines()[-5:]]
    assert rows == ["method", "this", "uniform", "fewer-steps", "full"]
    assert "UNSIGNED" not in out


def test_only_the_result_is_on_stdout(compiled):
    verdict, _, page = compiled.outcome.out.split("\n", 2)
    assert verdict.startswith("3 of 6 evaluations: PSNR ")
    assert page.startswith("wrote ")
    assert "it/s" not in compiled.outcome.err


def test_stages_of_the_whole_command_are_named(compiled):
    named = [re.match(r"[a-z-]+", line)[0] for line in begun(compiled.outcome.err)]
    stages = ["hash", "load", "encode", "calibration", "search", "held-out", "sign", "write"]
    assert [name for name in dict.fromkeys(named) if name != "import"] == stages


def test_unsigned_and_json(budc, compiled, shrunken, monkeypatch, tmp_path):
    shrunken(monkeypatch)
    flags = ["compile", "--model", "wan2.1-nano", "--budget", "6", "--steps", "6", "--search", "uniform"]
    flags += ["--weights", compiled.weights, "--calibration", compiled.prompts]
    record = budc(*flags, "--out", tmp_path / "a.budc.json", "--json").record
    assert record["policyId"] == read(tmp_path / "a.budc.json").policy_id
    assert record["budget"]["nfe"] == 6
    assert record["signedBy"] == []
    # A policy that computes every step is the full run.
    assert [m["mean"] for m in record["quality"]["metrics"] if m["name"] == "latent-mse"] == [0.0]
    outcome = budc("inspect", tmp_path / "a.budc.json")
    assert "UNSIGNED: nobody vouches" in outcome.out


def test_a_sweep_is_a_table_and_a_folder_of_policies(budc, compiled, shrunken, monkeypatch, tmp_path):
    shrunken(monkeypatch)
    flags = ["compile", "--model", "wan2.1-nano", "--sweep", "2,3x,4", "--steps", "6", "--search", "uniform"]
    flags += ["--weights", compiled.weights, "--calibration", compiled.prompts]
    # The folder is made.
    folder = tmp_path / "new" / "folder"
    flags += ["--no-frames", "--out", folder]
    outcome = budc(*flags)
    assert outcome.code == 0, outcome.err
    # 3x of six steps is two evaluations, as asked for already.
    *table, blank, recommended = outcome.out.splitlines()
    assert (blank, recommended.partition(":")[0]) == ("", "recommended")
    rows = [line.split() for line in table[-2:]]
    assert [row[0] for row in rows] == ["2", "4"]
    assert [row[-1] for row in rows] == [str(folder / f"wan2.1-nano-nfe{nfe}.budc.json") for nfe in (2, 4)]
    assert all(row[1] == "6" for row in rows)
    records = budc(*flags, "--json").record
    assert [record["budget"]["nfe"] for record in records] == [2, 4]
    for record in records:
        assert (
            record["policyId"]
            == read(folder / f"wan2.1-nano-nfe{record['budget']['nfe']}.budc.json").policy_id
        )


def test_a_policy_that_plain_steps_beat_says_so(make_document):
    import msgspec

    from budc.cli.output.summary import beaten

    document = make_document()
    ours, theirs = document.quality.metrics, document.quality.baselines[0].metrics
    ours = [msgspec.structs.replace(metric, geometric_mean=0.5) for metric in ours]
    for level, said in ((0.4, True), (0.5, False), (0.6, False)):
        few = [msgspec.structs.replace(metric, geometric_mean=level) for metric in theirs]
        baseline = msgspec.structs.replace(document.quality.baselines[0], name="fewer-steps", metrics=few)
        quality = msgspec.structs.replace(document.quality, metrics=ours, baselines=[baseline])
        text = beaten(msgspec.structs.replace(document, quality=quality))
        assert bool(text) == said, (level, text)
        if said:
            for part in ("3 plain steps", "0.4 against 0.5", "--steps auto --align"):
                assert part in text


@pytest.mark.parametrize(("flags", "seed", "align"), [((), 5, True), (("--seed", "0"), 0, True)])
def test_a_flag_wins_even_if_it_is_zero(budc, monkeypatch, tmp_path, flags, seed, align):
    plans = []

    def stop(plan):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr("budc.compiler.compile.compile_measured", stop)
    (tmp_path / "policy.toml").write_text('model = "wan2.1-nano"\nbudget = 3\nseed = 5\nalign = true\n')
    budc("compile", tmp_path / "policy.toml", "--out", tmp_path / "x.budc.json", *flags)
    assert [(plan.seed, plan.align) for plan in plans] == [(seed, align)]


def test_an_interrupted_compile_says_that_it_resumes(budc, compiled, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("budc.compiler.compile.compile_measured", interrupt)
    outcome = budc("compile", "--model", "wan2.1-nano", "--budget", "3")
    assert outcome.code == 130
    assert begun(outcome.err) == [
        "import: torch and diffusers",
        "interrupted: run the same command again to resume",
    ]
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (["--budget", "3"], 2),
        (["--model", "wan2.1-nnao", "--budget", "3"], 2),
        (["--model", "wan2.1-nano", "--budget", "0"], 51),
        (["--model", "wan2.1-nano", "--budget", "3", "--search", "nope"], 2),
        (["--model", "wan2.1-nano", "--budget", "3", "--weights", "/none"], 31),
        (["--model", "wan2.1-nano", "--budget", "3", "--key", "/none"], 26),
        (["--model", "wan2.1-nano", "--budget", "3", "--out", "/none/x.budc.json"], 61),
        (["/none.toml"], 2),
    ],
)
def test_refusals(budc, flags, code):
    outcome = budc("compile", *flags, "--json")
    assert outcome.code == code
    assert outcome.record["exitCode"] == code
    assert outcome.err.startswith("error: ")
