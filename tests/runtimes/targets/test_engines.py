"""The engines that run on a CPU, with the files that are written for them, against budc's own runtime."""

import json

import pytest

pytest.importorskip("torch")

import torch
from diffusers import MagCacheConfig

from budc.runtimes.sampling.rules import fixed_rows
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
