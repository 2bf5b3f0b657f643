"""A folder of work resumes the same call, and no other."""

import pytest
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from toy_networks import Blocks, pair

from budc.compiler import fingerprint
from budc.compiler.denoisers.experts import ExpertSwitch
from budc.compiler.denoisers.module import ModuleDenoiser
from budc.schema.errors import (
    JournalCorrupt,
    UnsupportedModel,
    UsageError,
)


def test_a_search_resumes_from_its_folder(compiled, tmp_path):
    network, calls = Blocks(), []
    network.blocks[0].register_forward_hook(lambda *_: calls.append(1))
    first, computed = compiled(network, search="dp", work=tmp_path), len(calls)
    again = compiled(network, search="dp", work=tmp_path)
    assert (first.policy, first.outcome) == (again.policy, again.outcome)
    assert len(calls) - computed < computed / 2
    assert list(tmp_path.iterdir())


def shifted():
    network = Blocks()
    network.shift += 1
    return network


def switch(boundary, seed=1):
    weights = {"cond": 3.0, "uncond": -2.0}
    return ExpertSwitch([ModuleDenoiser(Blocks(s), weights) for s in (0, seed)], [boundary])


@pytest.mark.parametrize(
    ("first", "other"),
    [
        ({}, {"denoiser": Blocks(seed=1)}),
        ({}, {"denoiser": shifted()}),
        ({}, {"denoiser": Blocks(gain=2.0)}),
        ({}, {"seed": 1}),
        ({}, {"denoiser": Blocks(trunk="others"), "blocks": "others"}),
        ({}, {"scheduler": FlowMatchEulerDiscreteScheduler(num_train_timesteps=500)}),
        ({}, {"scheduler": UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)}),
        ({}, {"guidance": {"cond": 2.0, "uncond": -1.0}}),
        ({}, {"batch": 1}),
        ({"denoiser": pair(1.0), "weights": "a"}, {"denoiser": pair(2.0), "weights": "b"}),
        ({"denoiser": switch(500.0)}, {"denoiser": switch(500.0, seed=2)}),
        ({"denoiser": switch(500.0)}, {"denoiser": switch(700.0)}),
        ({"denoiser": switch(500.0), "weights": "a"}, {"denoiser": switch(700.0), "weights": "a"}),
    ],
    ids=[
        "weights", "buffer", "attribute", "seed", "blocks", "scheduler settings", "scheduler", "guidance", "batch",
        "functions", "expert", "boundary", "boundary of a named network",
    ],
)  # fmt: skip
def test_a_folder_resumes_nothing_but_the_same_call(compiled, tmp_path, first, other):
    given = {"denoiser": Blocks(), "timesteps": [900.0, 800.0, 700.0, 600.0, 300.0, 100.0], "work": tmp_path}
    compiled(**given | first)
    with pytest.raises(JournalCorrupt, match="belongs to another compile") as caught:
        compiled(**given | first | other)
    assert "work=" in caught.value.remedy


@pytest.mark.parametrize("package", ["torch", "diffusers"])
def test_a_folder_is_resumed_with_the_same_versions_alone(compiled, tmp_path, monkeypatch, package):
    compiled(Blocks(), work=tmp_path)
    version = fingerprint.version
    monkeypatch.setattr(fingerprint, "version", lambda name: version(name) + "+x" * (name == package))
    with pytest.raises(JournalCorrupt, match="belongs to another compile"):
        compiled(Blocks(), work=tmp_path)


def test_equal_networks_resume_each_other(compiled, tmp_path):
    first = compiled(Blocks(), search="dp", work=tmp_path)
    assert compiled(Blocks(), search="dp", work=tmp_path).policy == first.policy
    with pytest.raises(JournalCorrupt):
        compiled(Blocks(seed=1), search="dp", work=tmp_path)
    # Its user may name a network, which then is not hashed.
    named = tmp_path / "named"
    compiled(Blocks(), work=named, weights="mine")
    compiled(Blocks(), work=named, weights="mine")


@pytest.mark.parametrize("kind", ["functions", "denoiser", "expert"])
def test_functions_do_not_resume_without_a_name_for_their_weights(compiled, toys, tmp_path, kind):
    denoiser = {
        "functions": pair(1.0),
        "denoiser": toys.toy(),
        "expert": ExpertSwitch([toys.toy(), toys.toy()], [500.0]),
    }[kind]
    with pytest.raises(UsageError, match=r"work: the weights behind this .* cannot be read") as caught:
        compiled(denoiser, work=tmp_path)
    assert "weights=" in caught.value.remedy
    assert compiled(denoiser, work=tmp_path, weights="a").policy == compiled(denoiser).policy


def test_weights_that_are_not_in_memory_cannot_be_told_from_others(compiled, tmp_path):
    with pytest.raises(UnsupportedModel, match=r"Blocks\.blocks\.0\.weight is not in memory") as caught:
        compiled(Blocks().to("meta"), work=tmp_path)
    assert "weights=" in caught.value.remedy
