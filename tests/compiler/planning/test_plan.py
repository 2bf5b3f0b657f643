"""Plans: forwards as a compile really spends them, FLOPs as the published architecture has them."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from msgspec.structs import replace  # noqa: E402

from budc.compiler.expected_passes import ExpectedPasses  # noqa: E402
from budc.compiler.planning.advice import advise  # noqa: E402
from budc.compiler.planning.cost import forward_cost, gradient_memory, input_size  # noqa: E402
from budc.compiler.planning.count import Count  # noqa: E402
from budc.compiler.planning.devices import DEVICES, device  # noqa: E402
from budc.compiler.planning.dummy_inputs import dummy_inputs  # noqa: E402
from budc.compiler.planning.estimate import UTILISATION, CompileEstimate, estimate_compile  # noqa: E402
from budc.compiler.planning.forwards import (  # noqa: E402
    CompileSettings,
    ProxyCost,
    forwards_by_stage,
    transfer_forwards,
)
from budc.compiler.search import Candidate  # noqa: E402
from budc.compiler.selection import settings as selection_settings  # noqa: E402
from budc.compiler.selection import training_cost  # noqa: E402
from budc.compiler.selection.calibration import Calibration  # noqa: E402
from budc.compiler.selection.effort import EFFORTS  # noqa: E402
from budc.compiler.selection.finder import Finder  # noqa: E402
from budc.compiler.selection.proxy import ProxySearch, after_proxy  # noqa: E402
from budc.compiler.selection.task import Task  # noqa: E402
from budc.compiler.selection.training_cost import paired  # noqa: E402
from budc.compiler.storage.journal import Journal  # noqa: E402
from budc.compiler.training import schedule_alignment, second_stage  # noqa: E402
from budc.policies.costs import Cost, costs  # noqa: E402
from budc.policies.profile import find_weights, load_profile  # noqa: E402
from budc.schema.errors import UnsupportedModel, UsageError  # noqa: E402

SMALL = Cost(
    parameters=1,
    flops=4e12,
    reuse_flops=1e10,
    weights=10**9,
    one_block=10**8,
    residual=10**6,
    latents=10**4,
    activations=10**8,
)


def flux(
    search: str,
    cost: Cost = SMALL,
    *places: object,
    align: bool = False,
    effort: str = "thorough",
    **options: object,
) -> CompileEstimate:
    """Estimate a compile of FLUX.1 for 10 of 28 steps."""
    settings = CompileSettings(load_profile("flux.1-dev"), (10,), 28, search, align, effort=effort)
    return estimate_compile(settings, cost, *places, **options)


def planned(settings: CompileSettings) -> int:
    """Forwards that are expected, the report left out."""
    stages = forwards_by_stage(settings, SMALL)
    return sum(count.expected for stage, count in stages.items() if stage != "report")


@pytest.mark.slow
def test_more_of_everything_costs_more() -> None:
    profile = load_profile("wan2.1")
    half, whole = forward_cost(replace(profile, frames=41)), forward_cost(profile)
    assert half.flops < whole.flops < 4 * half.flops
    assert half.weights == whole.weights


def test_a_real_count_agrees_with_the_meta_device() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    from budc.compiler.models.model import load_model

    profile = load_profile("wan2.1-nano")
    folder = find_weights(profile, None)
    model = load_model(profile, folder, torch.device("cpu")).denoiser
    config = dict(model.config)
    # Of the attention that runs on the CPU the library does not know the FLOPs, of its unfused form it does.
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with torch.no_grad(), plain, FlopCounterMode(display=False) as counter:
        model(**dummy_inputs("WanTransformer3DModel", config, input_size(profile)))
    assert forward_cost(profile, folder).flops == pytest.approx(counter.get_total_flops(), rel=1e-3)


@pytest.mark.parametrize(
    ("search", "train", "effort"),
    [
        ("uniform", None, "fast"),
        ("dp", None, "fast"),
        ("dp", None, "thorough"),
        ("dp", "both", "thorough"),
        ("paper", "sigmas", "thorough"),
    ],
)
def test_forwards_are_those_that_a_compile_spends(
    search: str, train: Any, effort: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    import budc

    short = second_stage.Configuration(samples=16, batch=8, clip=0.2)
    for module in (schedule_alignment, selection_settings, training_cost):
        monkeypatch.setattr(module, "configuration", lambda branches: short)
    align = train is not None
    profile = load_profile("wan2.1-nano")
    noise = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))

    def compute(latents: torch.Tensor, timestep: torch.Tensor, gain: torch.Tensor) -> object:
        bent = torch.tanh(latents + gain * timestep[:, None] / 1000)
        return bent, bent

    compiled = budc.compile_policy(
        (compute, lambda residual, latents, timestep, gain: residual),
        conditioning={"cond": torch.ones(8, 1), "uncond": -torch.ones(8, 1)},
        noise=noise,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        sigmas=[1 - k / 8 for k in range(9)],
        budget=3,
        guidance={"cond": 2.0, "uncond": -1.0},
        search=search,
        effort=effort,
        align=align,
        train=train,
    )
    settings = CompileSettings(profile, (3,), 8, search, align, 8, effort, train or "both")
    stages = forwards_by_stage(settings, SMALL)
    assert compiled.outcome.aligned is align
    judged = search == "dp" and effort == "thorough" and not align
    assert ("alignment" in stages, "refit" in stages) == (align, judged)
    if search == "paper":
        # How many candidates it scores depends on what the full run is like.
        assert stages["alignment"] == Count.exactly(compiled.outcome.forwards.alignment)
        return
    # And how many a path has.
    slack = 0 if search == "uniform" else 3 * 6 * 2
    assert planned(settings) == pytest.approx(compiled.outcome.forwards.total, abs=slack)


@pytest.mark.slow
@pytest.mark.parametrize(("effort", "nfe"), [("fast", 4), ("fast", 8), ("balanced", 8)])
def test_the_default_search_spends_what_is_planned(
    effort: str, nfe: int, task: Callable[..., Task], tmp_path: Path
) -> None:
    """Within 10 %: how many prefixes candidates share depends on their losses."""
    wanted = task(36, nfe, samples=24, effort=effort)
    with Journal(tmp_path / "planned", "planned") as journal:
        forwards = Finder(Calibration(wanted, journal)).find(wanted).forwards
    settings = CompileSettings(load_profile("wan2.1-nano"), (nfe,), 36, "joint", effort=effort, prompts=24)
    assert planned(settings) == pytest.approx(forwards.total, rel=0.1)


def test_a_search_after_a_proxy_spends_what_is_planned(task: Callable[..., Task], tmp_path: Path) -> None:
    wanted, smaller = (task(10, 3, samples=8, effort="fast", shape=shape) for shape in ((2, 3), (1, 2)))
    with Journal(tmp_path / "proxy", "p") as there, Journal(tmp_path / "real", "r") as here:
        found = ProxySearch(smaller, there).find(smaller)
        forwards = Finder(Calibration(wanted, here)).find(after_proxy(wanted, found)).forwards
    profile = load_profile("wan2.1-nano")
    proxy = ProxyCost(profile, SMALL, 0.25)
    settings = CompileSettings(profile, (3,), 10, "joint", effort="fast", prompts=8, proxy=proxy)
    stages = forwards_by_stage(settings, SMALL)
    assert stages["proxy"].expected == pytest.approx(0.25 * found.forwards, rel=0.1)
    assert planned(settings) == pytest.approx(forwards.total + 0.25 * found.forwards, rel=0.1)
    alone = forwards_by_stage(CompileSettings(profile, (3,), 10, "joint", effort="fast", prompts=8), SMALL)
    assert stages["search"].most < alone["search"].least


def test_a_transfer_spends_what_is_planned(task: Callable[..., Task], tmp_path: Path) -> None:
    profile, wanted = load_profile("wan2.1-nano"), task(12, 3, samples=8, effort="fast")
    with Journal(tmp_path / "source", "source") as journal:
        policy = Calibration(wanted, journal).fitted(Candidate.of(12, (0, 4, 8), "tracked")).policy
    with Journal(tmp_path / "transfer", "transfer") as journal:
        calibration = Calibration(wanted, journal)
        fit = calibration.refitted(policy)
    settings = CompileSettings(profile, (3,), 12, "joint", effort="fast", prompts=8)
    # Beside those of a compile's report, the policy as it came is measured.
    report = forwards_by_stage(settings, SMALL)["report"].expected
    report += 3 * settings.held_out_size * len(profile.branches)
    assert transfer_forwards(settings) == calibration.reference_forwards + fit.forwards + report


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_smaller_budget_costs_no_more(effort: str) -> None:
    profile = load_profile("flux.1-dev")
    spent = [planned(CompileSettings(profile, (nfe,), 28, "joint", effort=effort)) for nfe in (4, 10)]
    assert spent[0] <= spent[1]


def test_every_effort_costs_more_than_the_one_before() -> None:
    plans = [flux("joint", effort=effort) for effort in EFFORTS]
    spent = [plan.forwards - plan.stages["report"].expected for plan in plans]
    assert spent == sorted(spent)
    assert 1.5 * spent[0] < spent[1]


BLOCKS = {
    "flux.1-dev": {"num_layers": 2, "num_single_layers": 4},
    "wan2.1": {"num_layers": 6},
    "z-image": {"n_layers": 6},
}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize(
    "whole", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["whole", "few blocks"]
)
def test_a_gradient_takes_more_memory_than_a_forward_and_less_than_all_blocks_of_it(
    name: str, whole: bool
) -> None:
    profile = load_profile(name)
    settings = profile.architecture["transformer"]
    if whole:
        cost = costs()[name]
        memory = cost.gradients
    else:
        # Blocks of their real size, but few: every one of them is gone through operator by operator.
        settings = {**settings, **BLOCKS[name]}
        profile = replace(profile, architecture={"transformer": settings})
        cost, memory = forward_cost(profile), gradient_memory(profile)
    # What a block is given is kept for every block, what it makes of it for one.
    assert memory > cost.activations
    blocks = sum(settings[key] for key in BLOCKS[name])
    assert blocks * cost.residual < memory < blocks * cost.activations


def test_a_plan_with_alignment_holds_its_gradient() -> None:
    plain, aligned = flux("joint"), flux("joint", replace(SMALL, gradients=10**10), align=True)
    assert [phase.name for phase in aligned.phases] == ["reference run", "search", "align", "report"]
    assert aligned.memory == SMALL.weights + 10**10 + SMALL.residual
    assert aligned.forwards > 2 * plain.forwards - plain.stages["report"].expected
    lines = advise(aligned)
    assert f"no --align: {plain.forwards:,} forwards" in " ".join(lines)
    assert any(line.startswith("--search uniform without --align: ") for line in lines)


@pytest.mark.parametrize(("search", "train"), [("joint", "both"), ("paper", "sigmas")])
@pytest.mark.parametrize("effort", EFFORTS)
def test_an_alignment_is_planned_to_take_what_the_time_left_expects_of_it(
    search: str, train: Any, effort: str
) -> None:
    profile = load_profile("wan2.1")
    settings = CompileSettings(profile, (10,), 50, search, align=True, train=train, effort=effort)
    expected = ExpectedPasses(
        profile=profile,
        steps=50,
        search=search,
        effort=effort,
        stages=settings.stages,
        held_out=settings.held_out_size,
        frames=False,
        align=True,
    ).found(10)
    estimate = estimate_compile(settings, SMALL, seconds=1.0)
    aligned = estimate.stages["alignment"].expected + estimate.recomputed
    judged = 10 * 2 * paired(EFFORTS[effort], settings.stages).judging if search == "joint" else 0
    assert aligned == sum(expected["align"]) + sum(expected.get("paired", [])) + judged
    assert estimate.recomputed > 0
    assert estimate.hours() == pytest.approx((estimate.forwards + estimate.recomputed) / 3600)
    assert flux("joint", effort=effort).recomputed == 0


def test_the_policies_of_a_sweep_share_the_full_runs() -> None:
    profile = load_profile("flux.1-dev")
    for align in (False, True):
        both, *single = (
            forwards_by_stage(CompileSettings(profile, budgets, 28, "joint", align), SMALL)
            for budgets in ((8, 10), (8,), (10,))
        )
        assert both["calibration"] == single[0]["calibration"] == single[1]["calibration"]
        assert both["search"].expected == sum(stages["search"].expected for stages in single)
        full_run = 28 * profile.prompts.held_out_size
        assert both["report"].expected == sum(stages["report"].expected for stages in single) - full_run
    assert both["alignment"].expected < sum(stages["alignment"].expected for stages in single)


def test_hours_are_of_the_measured_forward_or_of_the_device() -> None:
    assumed = flux("uniform", SMALL, device("H100"))
    assert assumed.hours() == pytest.approx(assumed.forwards * 4e12 / (UTILISATION * 989e12) / 3600)
    assert not assumed.measured
    timed = flux("uniform", SMALL, device("H100"), seconds=2.0)
    assert timed.measured
    assert timed.hours() == pytest.approx(timed.forwards * 2.0 / 3600)
    assert flux("uniform").hours() is None


def test_cuts_cost_less_and_the_cheapest_compile_has_none_of_a_search() -> None:
    lines = advise(flux("joint"))
    assert any("--search uniform" in line for line in lines)
    assert all("% less" in line for line in lines)
    assert not any("--search" in line for line in advise(flux("uniform")))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="no device named 'tpu'") as caught:
        device("tpu")
    assert all(name in caught.value.remedy for name in DEVICES)
    with pytest.raises(UnsupportedModel, match="class Linear, expected one of FluxTransformer2DModel"):
        dummy_inputs("Linear", {}, input_size(load_profile("wan2.1")))
