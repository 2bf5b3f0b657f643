"""The counted costs of the shipped models: what is known of their architectures, and counted again."""

import pytest
from msgspec.structs import replace

from budc.policies.costs import Cost, costs, shipped_cost
from budc.policies.profile import embedded_folder, load_profile, profile_names

EMBEDDED = [name for name in profile_names() if load_profile(name).embedded]
REAL = [name for name in profile_names() if not load_profile(name).embedded]
WHOLE = ["flux.1-dev", "hunyuan-video", "qwen-image", "z-image"]
"""Whose repositories hold every part in the dtype that it is loaded in."""


def without(cost: Cost) -> Cost:
    """What a forward alone tells."""
    return replace(cost, gradients=0, parts=None)


def test_every_shipped_model_has_a_cost() -> None:
    assert list(costs()) == list(profile_names())
    for name in profile_names():
        assert shipped_cost(load_profile(name)) is costs()[name]
    # Only as it is shipped.
    assert shipped_cost(replace(load_profile("wan2.1"), height=720)) is None
    assert shipped_cost(replace(load_profile("wan2.1"), name="mine")) is None


@pytest.mark.parametrize("name", REAL)
def test_parameters_are_those_that_were_published(name: str) -> None:
    assert costs()[name].parameters == pytest.approx(load_profile(name).parameters * 1e9, rel=0.01)
    assert costs()[name].weights == pytest.approx(2 * costs()[name].parameters, rel=0.01)


@pytest.mark.parametrize("name", WHOLE)
def test_the_parts_together_are_as_large_as_the_repository(name: str) -> None:
    cost = costs()[name]
    assert cost.parts is not None
    assert cost.weights + cost.parts.encoder == pytest.approx(load_profile(name).size_gb * 1e9, rel=0.05)


def test_flux_costs_what_is_known_of_it() -> None:
    cost = costs()["flux.1-dev"]
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
    cost, tokens = costs()["wan2.1"], 21 * 30 * 52
    scores = 12 * tokens**2 * 2
    assert tokens * 1536 * 2 < cost.activations < scores / 4


@pytest.mark.parametrize(
    "name", [EMBEDDED[0], *(pytest.param(name, marks=pytest.mark.slow) for name in EMBEDDED[1:])]
)
def test_an_embedded_model_counted_again_costs_the_same(name: str) -> None:
    pytest.importorskip("torch")
    from budc.compiler.planning.cost import model_cost

    profile = load_profile(name)
    assert model_cost(profile, embedded_folder(profile), gradients=True) == costs()[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_forward_counted_again_costs_the_same(name: str) -> None:
    pytest.importorskip("torch")
    from budc.compiler.planning.cost import forward_cost

    assert forward_cost(load_profile(name)) == without(costs()[name])


@pytest.mark.slow
@pytest.mark.endless
@pytest.mark.parametrize("name", REAL)
def test_a_model_counted_again_costs_the_same(name: str) -> None:
    pytest.importorskip("torch")
    from budc.compiler.planning.cost import model_cost

    assert model_cost(load_profile(name), None, gradients=True) == costs()[name]
