"""`budc plan`: what it says of shipped models without a framework, of one's own with one, and what it refuses."""

import json
import subprocess
import sys

import pytest

PLAN = ("plan", "--model", "flux.1-dev", "--budget", "8")
MEASURED = """
import json, sys
from budc.cli import main
code = main({command!r})
loaded = sorted({{"torch", "numpy", "diffusers", "transformers"}} & set(sys.modules))
print(json.dumps([code, loaded]))
"""


@pytest.mark.parametrize(
    "further",
    [("--align",), ("--search", "paper"), ("--search", "nearby"), ("--sweep", "6,10", "--device", "h100")],
)
def test_a_shipped_model_is_planned_without_a_framework(further):
    budget = () if "--sweep" in further else ("--budget", "10")
    command = ["plan", "--model", "wan2.1-14b", *budget, *further]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(command=command)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0, []]


def test_a_plan_shows_its_stages(budc):
    outcome = budc(*PLAN, "--progress", "json")
    assert [json.loads(line)["stage"] for line in outcome.err.splitlines()] == ["plan"]


def test_the_record_has_everything(budc):
    command = ("plan", "--model", "wan2.1-14b", "--budget", "10", "--device", "h100", "--json")
    record = budc(*command).record
    assert record["budgets"] == [10]
    expected = sum(part["expected"] for part in record["parts"].values())
    assert record["forwards"]["expected"] == expected
    assert record["forwards"]["least"] < expected < record["forwards"]["most"]
    assert record["efforts"]["thorough"]["parts"]["calibration"]["expected"] == 50 * 24 * 2
    assert record["efforts"][record["effort"]]["parts"] == record["parts"]
    assert record["efforts"]["fast"]["hoursWithoutReport"] < 4
    assert record["measured"] is False
    assert record["hours"] == pytest.approx(expected * record["secondsPerForward"] / 3600)
    assert record["devices"]["h100"]["hours"] == record["hours"]
    assert record["deviceMemory"] == 80 * 10**9
    assert {phase["phase"]: phase["fit"] for phase in record["memory"]}["search"] == "fits"
    # A transfer refines coefficients as a search does, and measures two policies more: it saves what training takes.
    assert record["transfer"] is None
    assert budc(*command, "--align").record["transfer"]["source"] == "wan2.1"
    assert record["toCut"]


def test_the_page(budc):
    out = budc(*PLAN).out
    words = " ".join(out.split())
    assert "11.9 billion parameters" in out
    assert "8 of 28 steps" in out
    assert "reused 0.02% of it" in out
    assert "28 forwards of every step 8 forwards under the policy; the compile has paid for itself" in words
    assert "forwards by effort fast balanced thorough" in words
    assert "reference run 24 GB 1.3 GB with --offload group" in words
    devices = dict(line.split(None, 1) for line in out.splitlines() if line.startswith(("h100", "rtx4090")))
    assert devices["h100"].endswith("  fits")
    assert devices["rtx4090"].endswith("needs --offload group")
    assert out.splitlines()[-1].strip().endswith("less")


def test_a_device_of_ones_own_is_named_by_its_memory(budc):
    fits = {
        memory: {
            phase["phase"]: phase["fit"]
            for phase in budc(*PLAN, "--memory", memory, "--json").record["memory"]
        }
        for memory in ("80", "8", "1")
    }
    assert set(fits["80"].values()) == {"fits"}
    assert fits["8"]["encode"] == "fits, but slower"
    assert fits["8"]["search"] == "needs --offload group"
    assert fits["1"]["search"] == "does not fit"
    assert "in 8.0 GB" in budc(*PLAN, "--memory", "8").out


def test_a_sweep_costs_less_than_its_policies_one_by_one(budc):
    def forwards(*budget):
        return budc("plan", "--model", "flux.1-dev", *budget, "--json").record["forwards"]["expected"]

    assert forwards("--sweep", "6,8") < forwards("--budget", "6") + forwards("--budget", "8")
    assert "at NFE 6" in budc("plan", "--model", "flux.1-dev", "--sweep", "6,8").out


def test_shards_divide_the_full_runs_and_nothing_else(budc):
    record = budc(*PLAN, "--device", "h100", "--json", "--shards", "8").record
    shards = record["shards"]
    # 24 calibration and 32 held-out prompts: a job of eight runs three and four of them.
    saved = 28 * (24 - 3 + 32 - 4)
    assert shards["forwards"]["expected"] == record["forwards"]["expected"] - saved
    assert (shards["number"], record["workers"]) == (8, None)
    assert shards["hours"] < record["hours"]


def test_workers_share_a_compile_up_to_the_batch_of_its_search(budc):
    def planned(workers, *further):
        return budc(*PLAN, "--device", "h100", "--json", "--workers", workers, *further).record

    one, two, eight, many = (planned(workers) for workers in (1, 2, 8, 100))
    assert one["workers"] is None
    assert one["forwards"]["least"] / 8 < eight["workers"]["forwards"]["least"]
    assert one["hours"] > two["workers"]["hours"] > eight["workers"]["hours"]
    # A batch has eight candidates, and the prompts are cut into as many pieces.
    assert many["workers"] == eight["workers"] | {"number": 100}
    aligned = planned(8, "--align")
    assert aligned["workers"]["forwards"]["least"] > aligned["parts"]["alignment"]["least"]


def test_the_page_has_the_time_of_several_devices_where_it_is_asked_for(budc):
    page = budc(*PLAN, "--device", "h100", "--shards", "8", "--workers", "4").out
    assert "time of all, 8 shards" in page
    assert "one after another, 4 workers" in page
    assert "one after another" not in budc(*PLAN, "--device", "h100").out


def test_the_effort_decides_what_is_advised(budc):
    fast, thorough = (budc(*PLAN, "--json", "--effort", name).record for name in ("fast", "thorough"))
    assert fast["efforts"] == thorough["efforts"]
    assert fast["forwards"]["most"] < thorough["forwards"]["least"]
    assert fast["toCut"] != thorough["toCut"]


def test_an_alignment_is_planned_with_its_gradient(budc):
    plain, aligned = budc(*PLAN, "--json").record, budc(*PLAN, "--align", "--json").record
    assert aligned["forwards"]["least"] > plain["forwards"]["most"]
    assert "alignment" in aligned["parts"]
    assert "align" not in [phase["phase"] for phase in plain["memory"]]
    memory = {phase["phase"]: phase["whole"] for phase in aligned["memory"]}
    assert memory["align"] > memory["search"] + 10**9


def test_a_first_frame_is_encoded_in_a_phase_of_its_own(budc):
    record = budc("plan", "--model", "wan2.1-i2v-14b-480p", "--budget", "10", "--json").record
    memory = {phase["phase"]: phase["whole"] for phase in record["memory"]}
    assert list(memory)[:2] == ["encode", "encode images"]
    assert memory["encode images"] > 10**9


def test_an_embedded_model_is_timed_here_if_asked(budc):
    pytest.importorskip("torch")
    command = ("plan", "--model", "wan2.1-nano", "--budget", "10", "--search", "uniform", "--json")
    plain, timed = budc(*command).record, budc(*command, "--time").record
    assert (plain["measured"], plain["secondsPerForward"], plain["devices"]) == (False, None, {})
    assert timed["measured"] is True
    assert 0 < timed["secondsPerForward"] < 10
    assert timed["parts"] == plain["parts"]


@pytest.mark.slow
def test_a_profile_of_ones_own_is_counted(budc, wan_folder):
    pytest.importorskip("torch")
    record = budc("plan", "--model", wan_folder, "--budget", "4", "--json").record
    assert record["cost"]["flops"] > record["cost"]["reuseFlops"] > 0
    assert "decode" in [phase["phase"] for phase in record["memory"]]


@pytest.mark.parametrize(
    ("further", "code", "said"),
    [
        (("--budget", "9", "--search", "uniform", "--align"), 2, "leaves no prompts to judge by"),
        (
            ("--budget", "9", "--search", "paper", "--align"),
            2,
            "use --train sigmas, the paper's second stage",
        ),
        (("--budget", "9", "--train", "sigmas"), 2, "--train: says what --align trains"),
        (
            ("--budget", "9", "--align", "--loss", "lpips"),
            2,
            "--loss lpips: is what the paper's second stage",
        ),
        (("--budget", "10", "--device", "abacus"), 2, "--device: no device named 'abacus'"),
        (("--budget", "90"), 51, "--budget: '90' is 90 evaluations"),
        (("--sweep", "6,ninety"), 51, "--sweep: 'ninety'"),
        (("--budget", "9", "--sweep", "6,8"), 2, "both --budget and --sweep given"),
        ((), 2, "no budget given"),
        (("--budget", "9", "--effort", "heroic"), 2, "--effort: no effort named 'heroic'"),
        (("--budget", "9", "--search", "oracle"), 2, "oracle"),
        (("--budget", "9", "--search", "exhaustive"), 2, "--search exhaustive: 9 of 50 steps"),
        (("--budget", "9", "--for", "lightx"), 2, "--for: no target named 'lightx'"),
        (("--budget", "9", "--for", "lightx2v", "--align"), 2, "--align: LightX2V repeats the newest cached"),
        (("--budget", "9", "--for", "sd.cpp"), 2, "--for sd.cpp: no policy can be searched"),
        (("--budget", "9", "--memory", "0"), 2, "--memory"),
        (("--budget", "9", "--shards", "0"), 2, "--shards"),
        (("--budget", "9", "--workers", "0"), 2, "--workers"),
        (("--budget", "9", "--weights", "."), 2, "add --time"),
        (("--budget", "9", "--device", "h100", "--time"), 2, "give one"),
    ],
)
def test_bad_input(budc, further, code, said):
    outcome = budc("plan", "--model", "wan2.1", *further)
    assert outcome.code == code
    assert said in outcome.err
    assert outcome.out == ""


def test_the_papers_second_stage_is_planned_with_its_authors_samples(budc):
    asked = ("plan", "--model", "flux.1-dev", "--budget", "8", "--search", "paper", "--json")
    plain, aligned = (budc(*asked, *more).record for more in ((), ("--align", "--train", "sigmas")))
    # A hundred samples, or all that there are as often as it takes; a backward counts as two forwards.
    prompts = aligned["prompts"]["calibration"]
    trained = 8 * 3 * prompts * -(-100 // prompts)
    assert aligned["forwards"]["expected"] - plain["forwards"]["expected"] == trained
    assert (aligned["train"], plain["train"]) == ("sigmas", None)
    assert (aligned["loss"], plain["loss"], aligned["decodedForLoss"]) == ("latents", None, 0)
    # For a backward each forward is there twice.
    assert (aligned["recomputed"], plain["recomputed"]) == (trained // 3, 0)


def test_a_loss_of_frames_says_how_many_are_decoded(budc):
    asked = (*PLAN, "--search", "paper", "--align", "--train", "sigmas", "--loss", "lpips")
    record, page = budc(*asked, "--json").record, budc(*asked).out
    prompts = record["prompts"]["calibration"]
    # A policy's sample and the full run's, and both again for the backward.
    decoded = 4 * prompts * -(-100 // prompts)
    assert (record["loss"], record["decodedForLoss"]) == ("lpips", decoded)
    assert f"the VAE decodes {decoded:,} samples for it" in page
    assert "recomputed (time only)" in page
    assert "the VAE decodes" not in budc(*asked[:-2]).out


def test_a_plan_for_an_engine_counts_its_own_masks(budc):
    asked = ("plan", "--model", "flux.1-dev", "--budget", "5", "--steps", "12", "--json")
    free, periodic = (budc(*asked, *more).record for more in ((), ("--for", "openvino-genai")))
    assert (free["for"], periodic["for"]) == (None, "openvino-genai")
    # It has so few masks that each is rolled out.
    assert periodic["search"] == "known"
    assert periodic["parts"]["search"]["least"] == periodic["parts"]["search"]["most"]
    assert periodic["parts"]["search"] != free["parts"]["search"]
    # It reuses by a rule of its own, which nothing refines or fits.
    assert free["parts"].keys() - periodic["parts"].keys() == {"race", "refinement"}
