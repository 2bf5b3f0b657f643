"""A compile that is killed, at any moment, loses one measurement at most."""

import killing
import pytest

SCRIPT = """
import msgspec
from budc.compiler import request as requests
from budc.compiler.policy_source import make_request
from budc.compiler.compile import compile_artifacts
load = requests.choose_model
def smaller(name):
    profile = load(name)
    return msgspec.structs.replace(profile, prompts=msgspec.structs.replace(profile.prompts, held_out_size=2))
requests.choose_model = smaller
compile_artifacts(make_request({}, flags).resolve())
"""


def check_kills(tmp_path, flags, kills):
    """Kill a compile after so many measurements, again and again; then let it end."""

    def attempt(out, kill_after=None):
        given = flags | {"out": str(out)}
        ended = killing.run(SCRIPT, tmp_path / "log", measurements=kill_after, flags=given)
        assert ended.killed is (kill_after is not None)
        return ended.measured

    undisturbed, out = tmp_path / "undisturbed.budc.json", tmp_path / "killed.budc.json"
    needed = attempt(undisturbed)
    assert len(needed) > 2 * len(kills) if len(kills) < 10 else len(needed) > len(kills)
    measured = []
    for kill_after in kills:
        measured += attempt(out, kill_after)
        records = killing.journalled(tmp_path)
        # Whatever was reported is on disk; the kill may have come between the two for one, and no more are lost.
        assert records[: len(measured)] == measured
        measured = records
    measured += attempt(out)
    assert measured == needed, "nothing is measured twice"
    assert out.read_bytes() == undisturbed.read_bytes()


@pytest.fixture
def killed_flags(wan_folder, prompt_file):
    """What the compiles that are killed have in common."""
    return {"model": "wan2.1-nano", "weights": str(wan_folder), "calibration": str(prompt_file)}


@pytest.mark.slow
def test_kill_9_loses_one_measurement_at_most(killed_flags, tmp_path):
    flags = {"budget": "2", "steps": 5, "search": "joint", "align": True}
    check_kills(tmp_path, killed_flags | flags, kills=[2, 9])


@pytest.mark.slow
@pytest.mark.endless
@pytest.mark.parametrize(("search", "align"), [("paper", False), ("joint", True)])
def test_kill_9_at_fifty_moments_loses_one_measurement_at_most(killed_flags, tmp_path, search, align):
    flags = {"budget": "6", "steps": 20, "search": search, "align": align}
    check_kills(tmp_path, killed_flags | flags, kills=[1] * 50)
