"""An untrained model with a short schedule, loaded once."""

import pytest
import torch

from budc.compiler.calibrate import calibrate
from budc.compiler.journal import Journal
from budc.compiler.model import load_model
from budc.compiler.rollout import Roller
from budc.policies.profile import load_profile, read_prompts

STEPS = 6


@pytest.fixture(scope="session")
def model(wan_folder):
    return load_model(load_profile("wan2.1-nano"), wan_folder, torch.device("cpu"))


@pytest.fixture(scope="session")
def sampler(model):
    return model.sampler(STEPS)


@pytest.fixture
def roller(model):
    return Roller(model, batch=2)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal", "print") as journal:
        yield journal


@pytest.fixture
def reference(roller, sampler, prompt_file, journal):
    return calibrate(roller, sampler, read_prompts(prompt_file), 7, journal, "test full")
