import re

import pytest

pytest.importorskip("torch")


@pytest.fixture(scope="module", autouse=True)
def counted_once():
    """Go through the operators of each model once, however many of these tests plan it."""
    from budc.compiler.planning import cost

    with pytest.MonkeyPatch.context() as monkeypatch:
        for name in ("forward_cost", "gradient_memory"):
            monkeypatch.setattr(cost, name, remembered(getattr(cost, name)))
        yield


def remembered(count):
    counts = {}

    def call(profile, folder=None):
        if (profile.name, folder) not in counts:
            counts[profile.name, folder] = count(profile, folder)
        return counts[profile.name, folder]

    return call


def test_a_real_model_is_planned_without_its_weights(budc):
    record = budc("plan", "--model", "wan2.1-14b", "--budget", "10", "--device", "h100", "--json").record
    assert record["nfe"] == 10
    assert record["forwards"] == sum(record["parts"].values())
    assert record["efforts"]["thorough"]["parts"]["calibration"] == 50 * 24 * 2
    assert record["efforts"][record["effort"]]["parts"] == record["parts"]
    assert record["efforts"]["fast"]["hoursWithoutReport"] < 3
    assert record["measured"] is False
    assert 1 < record["hours"] < 100
    assert record["toCut"]


def test_the_page(budc):
    out = budc("plan", "--model", "flux.1-dev", "--budget", "8").out
    assert "11.9 billion parameters" in out
    assert "8 of 28 steps" in out
    assert "reused 0.02% of it" in out
    assert "name a --device" in out
    assert "28 forwards of every step, 8 under the policy; the compile has paid for itself after" in out
    assert re.search(r"[0-9.]+ (minutes|hours|days) on h100\n", out)
    assert re.search(r"on rtx4090, where one sample does not fit \(1[0-9]{2}% of its memory\)", out)
    assert "forwards by effort fast balanced thorough" in " ".join(out.split())
    assert out.splitlines()[-1].strip().endswith("less")


def test_an_embedded_model_is_timed_here(budc):
    record = budc("plan", "--model", "wan2.1-nano", "--budget", "10", "--search", "uniform", "--json").record
    assert record["measured"] is True
    assert 0 < record["secondsPerForward"] < 10


@pytest.mark.slow
def test_an_alignment_is_planned_with_its_gradient(budc):
    command = ("plan", "--model", "flux.1-dev", "--budget", "10", "--device", "h100")
    plain, aligned = budc(*command, "--json").record, budc(*command, "--align", "--json").record
    assert aligned["forwards"] > plain["forwards"]
    assert "alignment" in aligned["parts"]
    assert (plain["memory"]["gradients"], aligned["memory"]["gradients"] > 10**9) == (0, True)
    assert "for a sample's gradient" in budc(*command, "--align").out


def test_the_effort_decides_what_is_advised(budc):
    command = ("plan", "--model", "flux.1-dev", "--budget", "8", "--json", "--effort")
    fast, thorough = (budc(*command, name).record for name in ("fast", "thorough"))
    assert fast["efforts"] == thorough["efforts"]
    assert fast["forwards"] < thorough["forwards"]
    assert fast["toCut"] != thorough["toCut"]
    outcome = budc(*command, "heroic")
    assert outcome.code == 2
    assert "--effort: no effort named 'heroic'" in outcome.err


def test_bad_input(budc):
    outcome = budc("plan", "--model", "wan2.1", "--budget", "9", "--search", "uniform", "--align")
    assert outcome.code == 2
    assert "leaves no prompts to judge by" in outcome.err
    assert budc("plan", "--model", "wan2.1", "--budget", "10", "--device", "abacus").code == 2
    assert budc("plan", "--model", "wan2.1", "--budget", "90").code != 0
    outcome = budc("plan", "--model", "wan2.1", "--budget", "9", "--device", "h100", "--weights", ".")
    assert "give one" in outcome.err
