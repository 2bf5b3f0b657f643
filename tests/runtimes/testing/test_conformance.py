"""Both runtimes under the conformance suite, on untrained weights and their export; on CUDA too."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from tiny_folders import export_profile

from budc.runtimes.testing import (
    GOLDEN,
    RuntimeConformance,
    RuntimeUnderTest,
)
from budc.schema.policy import PolicyDocument

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from runtimes_under_test import DiffusersUnderTest, OnnxUnderTest  # noqa: E402

from budc.compiler.evaluation.precision import full_float32  # noqa: E402

PROFILE = export_profile()

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


@pytest.fixture(scope="module")
def loaded(wan_folder: Path) -> Any:
    from diffusers import WanPipeline

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    pipe = WanPipeline.from_pretrained(wan_folder)
    pipe.set_progress_bar_config(disable=True)
    yield pipe
    torch.set_num_threads(threads)


PAYLOADS = ["trunk-residual", "velocity"]


# The whole suite with the other payload runs where long tests run: only steps that reuse differ.
@pytest.fixture(scope="module", params=["trunk-residual", pytest.param("velocity", marks=pytest.mark.slow)])
def payload(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(untrained: PolicyDocument, payload: str) -> PolicyDocument:
    return _first(untrained, payload)


@pytest.fixture(scope="module")
def bound(untrained_export: PolicyDocument, payload: str) -> PolicyDocument:
    return _first(untrained_export, payload)


def _first(document: PolicyDocument, payload: str) -> PolicyDocument:
    document = GOLDEN["plain reuse"].document(document)
    policy = msgspec.structs.replace(document.policy, payload=payload)
    return msgspec.structs.replace(document, policy=policy)


def fresh(pipe: Any) -> Any:
    """Return a copy with a denoiser and a scheduler of its own: a policy changes no other component."""
    shared = [part for name, part in pipe.components.items() if name not in ("transformer", "scheduler")]
    return copy.deepcopy(pipe, {id(part): part for part in shared})


class TestDiffusers(RuntimeConformance):
    @pytest.fixture
    def runtime(self, loaded: Any, wan_folder: Path, base: PolicyDocument) -> RuntimeUnderTest:
        return DiffusersUnderTest(fresh(loaded), wan_folder, base, PROFILE)


class TestOnnxRuntime(RuntimeConformance):
    @pytest.fixture
    def runtime(
        self, loaded: Any, wan_folder: Path, exported: Path, bound: PolicyDocument, tmp_path: Path
    ) -> RuntimeUnderTest:
        plain = DiffusersUnderTest(loaded, wan_folder, bound, PROFILE).plain
        return OnnxUnderTest(exported, bound, plain, tmp_path)


@pytest.mark.gpu
class TestDiffusersOnCuda(RuntimeConformance):
    @pytest.fixture
    def runtime(self, cuda: Any, loaded: Any, wan_folder: Path, base: PolicyDocument) -> RuntimeUnderTest:
        return DiffusersUnderTest(copy.deepcopy(loaded).to(cuda), wan_folder, base, PROFILE)


@pytest.mark.gpu
class TestOnnxRuntimeOnCuda(RuntimeConformance):
    @pytest.fixture
    def runtime(
        self,
        cuda: Any,
        loaded: Any,
        wan_folder: Path,
        exported: Path,
        bound: PolicyDocument,
        tmp_path: Path,
    ) -> Iterator[RuntimeUnderTest]:
        plain = DiffusersUnderTest(copy.deepcopy(loaded).to(cuda), wan_folder, bound, PROFILE).plain
        with full_float32():
            yield OnnxUnderTest(exported, bound, plain, tmp_path, provider="cuda")


@pytest.mark.parametrize("reused", PAYLOADS)
@pytest.mark.parametrize("name", list(GOLDEN))
def test_both_runtimes_make_the_same_latents(
    name: str,
    reused: str,
    loaded: Any,
    wan_folder: Path,
    exported: Path,
    untrained_export: PolicyDocument,
    tmp_path: Path,
) -> None:
    bound = _first(untrained_export, reused)
    document = GOLDEN[name].document(bound)
    pipe = fresh(loaded)
    expected = DiffusersUnderTest(pipe, wan_folder, document, PROFILE).run(document)
    actual = OnnxUnderTest(exported, document, None, tmp_path).run(document)
    scale = np.abs(expected.latents).max()
    assert np.abs(actual.latents - expected.latents).max() < 1e-5 * scale
    for mine, theirs in zip(actual.steps, expected.steps, strict=True):
        assert (mine.branch, mine.step, mine.action) == (theirs.branch, theirs.step, theirs.action)
        # Cached velocities are tokens in one runtime, latents in the other.
        if bound.policy.payload == "trunk-residual":
            np.testing.assert_allclose(mine.cached, theirs.cached, atol=1e-5 * np.abs(theirs.cached).max())
