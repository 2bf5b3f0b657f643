"""Both runtimes under the conformance suite with a model of two denoisers, as Wan2.2 has them, and its export bound."""

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from runtimes_under_test import DiffusersUnderTest, OnnxUnderTest  # noqa: E402

from budc.policies.profile import ModelProfile, load_profile  # noqa: E402
from budc.runtimes.exported.folder import describe_export  # noqa: E402
from budc.runtimes.testing import GOLDEN, STEPS, GoldenPolicy, RuntimeConformance, RuntimeUnderTest  # noqa: E402
from budc.schema.policy import PolicyDocument, Shape  # noqa: E402

FIRST = 3
"""The first step of the second denoiser."""

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


@pytest.fixture(scope="module")
def profile() -> ModelProfile:
    size = {"height": 32, "width": 48, "frames": 5, "text_tokens": 8}
    return replace(load_profile("wan2.2"), **size, steps=STEPS, dtype="float32", architecture={})


@pytest.fixture(scope="module")
def pipe(pair_folder: Path) -> Iterator[Any]:
    from diffusers import WanPipeline

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loaded = WanPipeline.from_pretrained(pair_folder)
    loaded.set_progress_bar_config(disable=True)
    yield loaded
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=["trunk-residual", pytest.param("velocity", marks=pytest.mark.slow)])
def document(request: Any, profile: ModelProfile, pair_folder: Path, make_document: Any) -> PolicyDocument:
    from budc.compiler.models.binding import model_binding
    from budc.compiler.models.model import load_model

    made = make_document(
        steps=STEPS,
        model=model_binding(profile, pair_folder),
        sampler=load_model(profile, pair_folder, torch.device("cpu")).sampler(STEPS),
        shape=Shape(height=32, width=48, frames=5, dtype="float32", text_tokens=8),
    )
    assert made.sampler.first_steps == (FIRST,)
    made = GOLDEN["plain reuse"].document(made)
    return replace(made, policy=replace(made.policy, payload=request.param))


@pytest.fixture(scope="module")
def exported_pair(profile: ModelProfile, pair_folder: Path, tmp_path_factory: Any) -> Path:
    from budc.compiler.export.onnx import export_onnx

    folder = tmp_path_factory.mktemp("export") / "pair"
    with warnings.catch_warnings():
        # The exporter of torch warns of its own internals.
        warnings.simplefilter("ignore")
        export_onnx(profile, pair_folder, folder, "float32")
    return folder


class TwoDenoisers(RuntimeConformance):
    """The suite with those policies that two denoisers can run."""

    @pytest.fixture(params=[name for name, golden in GOLDEN.items() if golden.fits((FIRST,))])
    def golden(self, request: pytest.FixtureRequest) -> GoldenPolicy:
        return GOLDEN[request.param]


class TestDiffusers(TwoDenoisers):
    @pytest.fixture
    def runtime(
        self, pipe: Any, pair_folder: Path, document: PolicyDocument, profile: ModelProfile
    ) -> RuntimeUnderTest:
        own = ("transformer", "transformer_2", "scheduler")
        shared = [part for name, part in pipe.components.items() if name not in own]
        fresh = copy.deepcopy(pipe, {id(part): part for part in shared})
        return DiffusersUnderTest(fresh, pair_folder, document, profile)


@pytest.mark.slow
class TestOnnxRuntime(TwoDenoisers):
    @pytest.fixture
    def runtime(
        self,
        pipe: Any,
        pair_folder: Path,
        exported_pair: Path,
        document: PolicyDocument,
        profile: ModelProfile,
        tmp_path: Path,
    ) -> RuntimeUnderTest:
        variant, manifest = describe_export(exported_pair)
        assert manifest.denoisers == ("transformer", "transformer_2")
        model = replace(document.model, variants=[*document.model.variants, variant])
        bound = replace(document, model=model)
        plain = DiffusersUnderTest(pipe, pair_folder, bound, profile).plain
        return OnnxUnderTest(exported_pair, bound, plain, tmp_path)

    def test_both_runtimes_make_the_same(
        self, runtime: Any, pipe: Any, pair_folder: Path, profile: ModelProfile
    ) -> None:
        document = GOLDEN["two terms twice"].document(runtime.document)
        other = DiffusersUnderTest(pipe, pair_folder, document, profile)
        expected = other.run(document)
        other._remove()
        self.assert_close(runtime.run(document).latents, expected.latents)
