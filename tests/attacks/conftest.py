"""The corpus, made anew for every test run: folders hold links and pipes that no checkout can carry."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def maker() -> ModuleType:
    """`make.py`, which is a script and no part of any package."""
    spec = importlib.util.spec_from_file_location("attacks_make", HERE / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def corpus(maker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `make.py` filled."""
    folder = tmp_path_factory.mktemp("attacks")
    maker.make(folder)
    return folder
