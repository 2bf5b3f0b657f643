"""Fixtures for every folder of tests, and the order in which their processes take them."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from budc.cli.dependencies import NEW_OBJECTS
from budc.schema.keys import PublicKey
from budc.schema.signers import KeyPair, Signer, generate_key, load_signer
from budc.schema.trust import Trust

pytest_plugins = [
    "documents",
    "evaluations",
    "pretended_cuda",
    "shown_policies",
    "tiny_folders",
    "tiny_profiles",
]

GUIDES = "tests/docs/"

# As on the command line: most objects of a test process are those of the libraries, and stay.
gc.set_threshold(NEW_OBJECTS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the guides, which take longest: begun last, they would leave all other processes idle."""
    items.sort(key=lambda item: not item.nodeid.startswith(GUIDES))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out files, as their tests share what is expensive to set up, and guides one by one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc,no-any-unimported]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(GUIDES) else str(super()._split_scope(nodeid))

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the test run's own, so that nothing remembered by the user decides a test."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def key_pair() -> KeyPair:
    """An unencrypted ECDSA P-256 key, as PEM."""
    return generate_key()


@pytest.fixture(scope="session")
def signer(key_pair: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """The signer of `key_pair`."""
    path = tmp_path_factory.mktemp("keys") / "release.key"
    path.write_bytes(key_pair.private)
    return load_signer(path)


@pytest.fixture(scope="session")
def trust(key_pair: KeyPair) -> Trust:
    """Trust in `key_pair` alone."""
    return Trust((PublicKey.from_pem(key_pair.public),))


@pytest.fixture(scope="session")
def cuda() -> Any:
    """The CUDA device; what needs one and finds none is skipped."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three calibration prompts in the nano models' language."""
    path = tmp_path_factory.mktemp("prompts") / "calibration.txt"
    path.write_text(
        "a small red circle moves left over stripes\na big blue box drifts up on checks\na cyan cross orbits\n"
    )
    return path
