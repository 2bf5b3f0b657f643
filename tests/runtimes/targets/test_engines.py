"""The engines that run on a CPU, with the files that are written for them, against budc's own runtime."""

import json
import logging

import pytest

pytest.importorskip("torch")

import torch
from diffusers import MagCacheConfig

from budc.runtimes.sampling.rules import fixed_rows
from budc.runtimes.sampling.steps import Compute, StepMachine
from budc.runtimes.sampling.trunk import Trunk, combine
from budc.runtimes.targets.losses import deployed
from budc.runtimes.targets.registry import TARGETS
from budc.schema.mask import StepMask

STEPS = 6
MASKS = {
    "uniform": StepMask.uniform(STEPS, 3),
    "first alone": StepMask.uniform(STEPS, 1),
    "last": StepMask.from_compute_steps(STEPS, (0, 4, 5)),
}


def written(name, document, suffix=""):
    target = TARGETS[name]
    deployment = deployed(target, document, "sha256:" + "0" * 64, {}, suffix)
    return target.write(deployment).text, deployment


@pytest.mark.parametrize("mask", MASKS)
def test_diffusers_magcache_makes_what_budc_makes(pipe, run, compiled_for, applied_quietly, mask):
    document = compiled_for(pipe, MASKS[mask], fixed_rows("plain", MASKS[mask]))
    text, deployment = written("diffusers-magcache", document)
    assert deployment.losses == ()
    full = run(pipe)
    with applied_quietly(pipe, document):
        expected = run(pipe)
    pipe.transformer.enable_cache(MagCacheConfig(**json.loads(text)))
    latents = [run(pipe), run(pipe)]
    pipe.transformer.disable_cache()
    for own in latents:
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)
    assert (expected - full).abs().max() > 1e-3


def test_cache_dit_makes_what_budc_makes_with_its_first_block(pipe, run, compiled_for, tmp_path):
    cache_dit = pytest.importorskip("cache_dit")
    logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)
    mask = MASKS["uniform"]
    document = compiled_for(pipe, mask, fixed_rows("plain", mask))
    text, deployment = written("cache-dit", document, ".yaml")
    expected = with_first_block(pipe, run, deployment.policy)
    (tmp_path / "cache.yaml").write_text(text)
    cache_dit.enable_cache(pipe, **cache_dit.load_configs(str(tmp_path / "cache.yaml")))
    latents = [run(pipe), run(pipe)]
    cache_dit.disable_cache(pipe)
    for own in latents:
        torch.testing.assert_close(own, expected, rtol=1e-5, atol=1e-5)


def with_first_block(pipe, run, policy):
    """Run a pipeline under a policy whose trunk begins after the first block."""
    trunk, machine = Trunk(pipe.transformer, policy.payload, first_blocks=1), StepMachine(policy, combine)
    forward, calls = type(pipe.transformer).forward, 0
    branches = machine.names

    def step(*args, **inputs):
        nonlocal calls
        branch, index = branches[calls % len(branches)], calls // len(branches)
        calls += 1
        action = machine.step(branch, index)
        trunk.set_compute() if isinstance(action, Compute) else trunk.set_reuse(action.cached)
        output = forward(pipe.transformer, *args, **inputs)
        recorded = trunk.clear()
        if isinstance(action, Compute):
            machine.record(branch, recorded)
        return output

    with trunk.installed():
        pipe.transformer.forward = step
        latents = run(pipe)
        del pipe.transformer.forward
    return latents
