"""A compile on tensors of the toy denoiser, and what its errors must say."""

import re

import pytest

import budc


@pytest.fixture
def compiled(toys):
    """Compile for the toy denoiser, with changes to the arguments."""

    def compiled(denoiser=None, samples=8, **changes):
        conditions = toys.conditions(samples)
        scheduler = toys.schedulers["euler"]()
        arguments = {
            "conditioning": conditions.embeddings,
            "noise": conditions.noise,
            "scheduler": scheduler,
            "sigmas": toys.schedule(scheduler, 6).sigmas,
            "budget": 3,
            "guidance": {"cond": 3.0, "uncond": -2.0},
            "search": "uniform",
        }
        return budc.compile_policy(toys.toy() if denoiser is None else denoiser, **arguments | changes)

    return compiled


@pytest.fixture
def refuses(compiled):
    """Compile with such changes, and see the error and its remedy say what these patterns do."""

    def refuses(changes, error, message, remedy):
        with pytest.raises(error) as caught:
            compiled(**changes)
        for pattern, text in ((message, str(caught.value)), (remedy, caught.value.remedy)):
            assert re.search(pattern, text), text
        assert "--" not in f"{caught.value} {caught.value.remedy}"

    return refuses
