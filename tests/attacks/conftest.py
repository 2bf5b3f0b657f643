"""The corpus, made anew for every test run: folders hold links and pipes that no checkout can carry."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent
# `make.py` is a script and no part of any package; what it imports lies beside it.
sys.path.insert(0, str(HERE))

from attack_corpus import forge as forging  # noqa: E402


@pytest.fixture(scope="session")
def forge() -> ModuleType:
    """The ways to change and sign an artifact."""
    return forging


@pytest.fixture(scope="session")
def script() -> ModuleType:
    """`make.py`."""
    spec = importlib.util.spec_from_file_location("attacks_make", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def corpus(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make.py` filled."""
    folder = tmp_path_factory.mktemp("attacks")
    script.make(folder)
    return folder
