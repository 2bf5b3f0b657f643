"""Shards of a compile: several jobs make the reference runs, and the compile goes on from theirs."""

import sys

import msgspec
import pytest

from budc.compiler.compile import compile_artifacts
from budc.compiler.evaluation import pipeline_rollout
from budc.compiler.policy_source import make_request
from budc.compiler.rollouts import reference_run
from budc.compiler.shard_run import compile_shard
from budc.compiler.storage.journal import Journal
from budc.schema.artifact import read
from budc.schema.errors import JournalBusy, UsageError


@pytest.fixture(scope="module")
def flags(wan_folder, tmp_path_factory):
    """A compile of six prompts, fixed to a mask, that takes a second."""
    folder = tmp_path_factory.mktemp("prompts")
    prompts = [
        f"a {colour} circle moves left" for colour in ("red", "blue", "cyan", "green", "white", "black")
    ]
    (folder / "calibration.txt").write_text("\n".join(prompts[:4]))
    (folder / "held-out.txt").write_text("\n".join(prompts[4:]))
    return {
        "model": "wan2.1-nano",
        "mask": "#..#",
        "fit": True,
        "steps": 4,
        **{"height": 32, "width": 48, "frames": 5},
        "weights": wan_folder,
        "calibration": folder / "calibration.txt",
        "held_out": folder / "held-out.txt",
        "no_frames": True,
    }


def make(flags, number, jobs, folder):
    """Make one shard."""
    plan = make_request({}, flags | {"shard": f"{number}/{jobs}", "out": folder}).resolve()
    return compile_shard(plan, plan.shard, folder)


def merged(flags, folder, out):
    """Compile from the shards in a folder."""
    return compile_artifacts(make_request({}, flags | {"merge": folder, "out": out}).resolve())[0].document


@pytest.fixture(scope="module")
def parts(flags, tmp_path_factory):
    """Both shards of two jobs, the second one first."""
    folder = tmp_path_factory.mktemp("parts")
    return folder, [make(flags, number, 2, folder) for number in (2, 1)]


def test_the_jobs_share_the_prompts_and_the_policy_is_the_same(flags, parts, tmp_path, monkeypatch):
    folder, results = parts
    assert [result.samples for result in results] == [3, 3]
    # Nothing of Ray is imported without --ray.
    monkeypatch.setitem(sys.modules, "ray", None)
    alone = compile_artifacts(make_request({}, flags | {"out": tmp_path / "alone.budc.json"}).resolve())[
        0
    ].document

    def not_again(*_):
        raise AssertionError("a reference run is made again")

    monkeypatch.setattr(reference_run, "_run", not_again)
    together = merged(flags, folder, tmp_path / "policy.budc.json")
    assert together.policy.branches[0].mask == alone.policy.branches[0].mask
    rows = [
        [value for branch in document.policy.branches for row in branch.predictor for value in row]
        for document in (together, alone)
    ]
    # Batches of other sizes round otherwise.
    assert rows[0] == pytest.approx(rows[1], rel=1e-4)
    assert together.quality.metrics[0].mean == pytest.approx(alone.quality.metrics[0].mean, rel=1e-4)
    assert together.search.forwards == alone.search.forwards


def test_a_shard_that_is_made_again_computes_nothing(flags, parts, monkeypatch):
    folder, _ = parts

    def not_again(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(reference_run, "_run", not_again)
    monkeypatch.setattr(pipeline_rollout.PipelineRollout, "_roll", not_again)
    assert make(flags, 1, 2, folder).samples == 3


def test_a_merge_that_differs_is_told_in_what(flags, parts, tmp_path):
    with pytest.raises(UsageError, match="differs in: seed"):
        merged(flags | {"seed": 1}, parts[0], tmp_path / "policy.budc.json")
    with pytest.raises(UsageError, match="differs in: mask"):
        merged(flags | {"mask": "#.#."}, parts[0], tmp_path / "policy.budc.json")


def test_shards_that_are_missing_or_not_ended_are_named(flags, tmp_path, parts):
    folder, out = tmp_path / "parts", tmp_path / "policy.budc.json"
    folder.mkdir()
    with pytest.raises(UsageError, match="has no shards"):
        merged(flags, folder, out)
    for path in parts[0].iterdir():
        if path.name.startswith("shard-1"):
            path.rename(folder / path.name)
    try:
        with pytest.raises(UsageError, match="has 1 of 2 shards; 2/2 is not there"):
            merged(flags, folder, out)
    finally:
        for path in folder.iterdir():
            path.rename(parts[0] / path.name)


def test_a_shard_that_was_stopped_is_named_and_one_that_runs_is_not_taken(flags, tmp_path):
    folder, out = tmp_path / "parts", tmp_path / "policy.budc.json"
    (own,) = [make(flags, 1, 1, folder).folder]
    lines = (own / "journal.jsonl").read_bytes().splitlines(keepends=True)
    fingerprint = msgspec.json.decode(lines[0].partition(b" ")[2])["fingerprint"]
    with Journal(own, fingerprint), pytest.raises(JournalBusy, match="shard 1/1 is still being computed"):
        merged(flags, folder, out)
    (own / "journal.jsonl").write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UsageError, match="shard 1/1 was stopped before its end"):
        merged(flags, folder, out)
    assert not out.exists()
    assert make(flags, 1, 1, folder).samples == 6
    assert merged(flags, folder, out) == read(out).document


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"shard": "9/8", "out": "parts"}, "no shard"),
        ({"shard": "0/8", "out": "parts"}, "no shard"),
        ({"shard": "1/9999", "out": "parts"}, "no shard"),
        ({"shard": "half", "out": "parts"}, "no shard"),
        ({"shard": "1/2"}, "no folder"),
        ({"shard": "1/2", "out": "parts", "merge": "."}, "--merge goes on"),
        ({"merge": "nowhere"}, "not a folder"),
    ],
)
def test_flags_that_do_not_fit_are_refused(flags, given, match):
    with pytest.raises(UsageError, match=match):
        make_request({}, flags | given).resolve()
