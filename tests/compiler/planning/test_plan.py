"""Plans: forwards as a compile really spends them, FLOPs as the published architecture has them."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402

from msgspec.structs import replace  # noqa: E402

from budc.compiler.planning.advice import advise  # noqa: E402
from budc.compiler.planning.cost import Cost, forward_cost, gradient_memory, input_size  # noqa: E402
from budc.compiler.planning.devices import DEVICES, device  # noqa: E402
from budc.compiler.planning.dummy_inputs import dummy_inputs  # noqa: E402
from budc.compiler.planning.estimate import UTILISATION, CompileEstimate, estimate_compile  # noqa: E402
from budc.compiler.planning.forwards import CompileSettings, forwards_by_stage  # noqa: E402
from budc.compiler.selection.effort import EFFORTS  # noqa: E402
from budc.compiler.selection.finder import Finder  # noqa: E402
from budc.compiler.selection.task import Task  # noqa: E402
from budc.compiler.storage.journal import Journal  # noqa: E402
from budc.policies.profile import find_weights, load_profile  # noqa: E402
from budc.schema.errors import UnsupportedModel, UsageError  # noqa: E402

SMALL = Cost(parameters=1, flops=4e12, reuse_flops=1e10, weights=10**9, residual=10**6, activations=10**8)


def flux(
    search: str, *costs: object, align: bool = False, effort: str = "thorough", **options: object
) -> CompileEstimate:
    """Estimate a compile of FLUX.1 for 10 of 28 steps."""
    settings = CompileSettings(load_profile("flux.1-dev"), 10, 28, search, align, effort=effort)
    return estimate_compile(settings, *(costs or (SMALL,)), **options)


def test_flux_costs_what_is_known_of_it() -> None:
    cost = forward_cost(load_profile("flux.1-dev"))
    # 2 FLOPs a parameter and token do not hold where text and image have weights of their own: count by hand.
    tokens, text, width = 4096, 512, 3072
    double = 19 * (12 * width**2 * 2 * (tokens + text))
    single = 38 * (12 * width**2 * 2 * (tokens + text))
    attention = 57 * 4 * (tokens + text) ** 2 * width
    assert cost.flops == pytest.approx(double + single + attention, rel=0.01)
    assert cost.residual == tokens * width * 2
    assert cost.weights == 2 * cost.parameters
    assert cost.reuse_flops < 0.001 * cost.flops


def test_no_matrix_of_scores_is_counted_as_memory() -> None:
    profile = load_profile("wan2.1")
    cost, tokens = forward_cost(profile), 21 * 30 * 52
    scores = 12 * tokens**2 * 2
    assert tokens * 1536 * 2 < cost.activations < scores / 4


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
    ("search", "align", "effort"),
    [
        ("uniform", False, "fast"),
        ("dp", False, "fast"),
        ("dp", False, "thorough"),
        ("dp", True, "thorough"),
    ],
)
def test_forwards_are_those_that_a_compile_spends(search: str, align: bool, effort: str) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    import budc

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
    )
    stages = forwards_by_stage(CompileSettings(profile, 3, 8, search, align, 8, effort))
    assert compiled.outcome.aligned is align
    judged = search == "dp" and effort == "thorough" and not align
    assert ("alignment" in stages, "refit" in stages) == (align, judged)
    spent = sum(stages.values()) - stages["report"]
    # How many candidates a path has depends on what the full run is like.
    assert spent == pytest.approx(
        compiled.outcome.forwards.total, abs=0 if search == "uniform" else 3 * 6 * 2
    )


@pytest.mark.parametrize(("effort", "nfe"), [("fast", 8), ("balanced", 8), ("fast", 4)])
def test_the_default_search_spends_what_is_planned(
    effort: str, nfe: int, task: Callable[..., Task], tmp_path: Path
) -> None:
    """Within 10 %: how many prefixes candidates share depends on their losses."""
    wanted = task(36, nfe, samples=24, effort=effort)
    with Journal(tmp_path / "planned", "planned") as journal:
        forwards = Finder(wanted, journal).find(wanted).forwards
    stages = forwards_by_stage(
        CompileSettings(load_profile("wan2.1-nano"), nfe, 36, "joint", effort=effort, prompts=24)
    )
    assert sum(stages.values()) - stages["report"] == pytest.approx(forwards.total, rel=0.1)


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_smaller_budget_costs_no_more(effort: str) -> None:
    profile = load_profile("flux.1-dev")
    spent = [
        sum(forwards_by_stage(CompileSettings(profile, nfe, 28, "joint", effort=effort)).values())
        for nfe in (4, 10)
    ]
    assert spent[0] <= spent[1]


def test_every_effort_costs_more_than_the_one_before() -> None:
    spent = [flux("joint", effort=effort).search_forwards for effort in EFFORTS]
    assert spent == sorted(spent)
    assert 2 * spent[0] < spent[1]


BLOCKS = {
    "flux.1-dev": {"num_layers": 2, "num_single_layers": 4},
    "wan2.1": {"num_layers": 6},
    "z-image": {"n_layers": 6},
}


@pytest.mark.parametrize(
    "name", ["wan2.1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("flux.1-dev", "z-image"))]
)
@pytest.mark.parametrize(
    "whole", [pytest.param(True, marks=pytest.mark.slow), False], ids=["whole", "few blocks"]
)
def test_a_gradient_takes_more_memory_than_a_forward_and_less_than_all_blocks_of_it(
    name: str, whole: bool
) -> None:
    profile = load_profile(name)
    settings = profile.architecture["transformer"]
    if not whole:
        # Blocks of their real size, but few: every one of them is gone through operator by operator.
        settings = {**settings, **BLOCKS[name]}
        profile = replace(profile, architecture={"transformer": settings})
    cost, memory = forward_cost(profile), gradient_memory(profile)
    # What a block is given is kept for every block, what it makes of it for one.
    assert memory > cost.activations
    blocks = sum(settings[key] for key in BLOCKS[name])
    assert blocks * cost.residual < memory < blocks * cost.activations


def test_a_plan_with_alignment_holds_its_gradient() -> None:
    plain = flux("joint")
    aligned = flux("joint", align=True, gradients=10**10)
    assert aligned.memory - plain.memory == 10**10 - SMALL.activations
    assert aligned.forwards > 2 * plain.forwards - plain.stages["report"]
    lines = advise(aligned, None)
    assert f"no --align: {plain.forwards:,} forwards" in " ".join(lines)
    assert any(line.startswith("--search uniform without --align: ") for line in lines)


def test_hours_are_of_the_measured_forward_or_of_the_device() -> None:
    assumed = flux("uniform", SMALL, device("H100"))
    assert assumed.hours() == pytest.approx(assumed.forwards * 4e12 / (UTILISATION * 989e12) / 3600)
    assert not assumed.measured
    timed = flux("uniform", SMALL, device("H100"), seconds=2.0)
    assert timed.measured
    assert timed.hours() == pytest.approx(timed.forwards * 2.0 / 3600)
    assert flux("uniform").hours() is None


def test_cuts_cost_less_and_the_cheapest_compile_has_none_of_a_search() -> None:
    lines = advise(flux("joint"), None)
    assert any("--search uniform" in line for line in lines)
    assert all("% less" in line for line in lines)
    assert not any("--search" in line for line in advise(flux("uniform"), None))


def test_a_model_that_does_not_fit_is_said_first() -> None:
    huge = Cost(1, 1e12, 1e9, weights=90 * 10**9, residual=1, activations=1)
    lines = advise(flux("joint", huge, device("h100")), device("h100"))
    assert lines[0].startswith("one sample takes 90 GB, NVIDIA H100 SXM has 80")


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UsageError, match="no device named 'tpu'") as caught:
        device("tpu")
    assert all(name in caught.value.remedy for name in DEVICES)
    with pytest.raises(UnsupportedModel, match="class Linear, expected one of FluxTransformer2DModel"):
        dummy_inputs("Linear", {}, input_size(load_profile("wan2.1")))
