"""The ONNX runtime under the conformance suite with models whose text is masked: Z-Image and Qwen-Image, exported."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from runtimes_under_test import OnnxUnderTest  # noqa: E402
from wan_runs import PROMPT, SEED  # noqa: E402

from budc.policies.profile import ModelProfile, load_profile  # noqa: E402
from budc.runtimes.diffusers.apply import applied  # noqa: E402
from budc.runtimes.exported.folder import describe_export  # noqa: E402
from budc.runtimes.testing import GOLDEN, STEPS, RuntimeConformance, RuntimeUnderTest  # noqa: E402
from budc.schema.errors import CalibrationMismatch  # noqa: E402
from budc.schema.policy import PolicyDocument, Shape  # noqa: E402

# Each of the two exports takes most of a minute.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning"),
]

Call = Callable[[Mapping[str, Any]], Any]

SIZES = {
    "z-image": {"height": 40, "width": 48, "text_tokens": 64},
    "qwen-image": {"height": 32, "width": 48, "text_tokens": 24},
}
"""Not a multiple of 32 cells for Z-Image, so that it pads images too."""


@pytest.fixture(scope="module", params=list(SIZES))
def profile(request: pytest.FixtureRequest) -> ModelProfile:
    own: dict[str, Any] = {"steps": STEPS, "dtype": "float32", "architecture": {}}
    return replace(load_profile(request.param), **SIZES[request.param], **own)


@pytest.fixture(scope="module")
def folder(profile: ModelProfile, request: pytest.FixtureRequest) -> Path:
    made: Path = request.getfixturevalue(f"{profile.name.replace('-', '_')}_folder")
    return made


@pytest.fixture(scope="module")
def export(profile: ModelProfile, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from budc.compiler.export.onnx import export_onnx

    out = tmp_path_factory.mktemp("export") / profile.name
    with warnings.catch_warnings():
        # The exporter of torch warns of its own internals.
        warnings.simplefilter("ignore")
        export_onnx(profile, folder, out, "float32")
    return out


@pytest.fixture(scope="module")
def model(profile: ModelProfile, folder: Path) -> Any:
    from budc.compiler.models.model import load_model

    return load_model(profile, folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def document(
    profile: ModelProfile, folder: Path, model: Any, export: Path, make_document: Any
) -> PolicyDocument:
    from budc.compiler.models.binding import model_binding

    binding = model_binding(profile, folder)
    variant, manifest = describe_export(export)
    assert manifest.text_tokens == profile.text_tokens
    made = make_document(
        steps=STEPS,
        model=replace(binding, variants=[*binding.variants, variant]),
        sampler=model.sampler(STEPS),
        shape=Shape(dtype="float32", frames=1, **SIZES[profile.name]),
    )
    return GOLDEN["plain reuse"].document(made)


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def call(pipe: Any, profile: ModelProfile) -> Call:
    """Generate with diffusers, with what a policy passes to its pipeline; return the final latents."""

    def run(arguments: Mapping[str, Any]) -> Any:
        generator = torch.Generator().manual_seed(SEED)
        # Qwen-Image runs without guidance where it is given no negative prompt.
        fixed = {"negative_prompt": profile.prompts.negative, "output_type": "latent"}
        return pipe(PROMPT, generator=generator, **fixed, **arguments).images.numpy()

    return run


class TestOnnxRuntime(RuntimeConformance):
    @pytest.fixture(autouse=True)
    def family(self, profile: ModelProfile) -> None:
        self.name = profile.name
        if profile.name == "z-image":
            # Timesteps there go up to 1000: rounding one the other way moves final latents by 1.8e-5 of the largest.
            self.tolerance = 4e-5

    @pytest.fixture
    def runtime(
        self, pipe: Any, call: Call, folder: Path, export: Path, document: PolicyDocument, tmp_path: Path
    ) -> RuntimeUnderTest:
        def plain() -> Any:
            with applied(pipe, document, allow_unsigned=True, weights_dir=folder) as policy:
                arguments = policy.call_arguments
            return call(arguments)

        return OnnxUnderTest(export, document, plain, tmp_path)

    def guided(self, velocity: Mapping[str, Any], guidance: float) -> Any:
        cond, uncond = velocity["cond"], velocity["uncond"]
        if self.name == "z-image":
            return cond + guidance * (cond - uncond)
        guided = uncond + guidance * (cond - uncond)
        norms = [np.linalg.norm(each, axis=-1, keepdims=True) for each in (cond, guided)]
        return guided * norms[0] / norms[1]

    @pytest.mark.parametrize("payload", ["trunk-residual", "velocity"])
    @pytest.mark.parametrize("name", list(GOLDEN))
    def test_both_runtimes_make_the_same_latents(
        self, name: str, payload: Any, runtime: Any, pipe: Any, call: Call, folder: Path
    ) -> None:
        document = GOLDEN[name].document(runtime.document)
        document = replace(document, policy=replace(document.policy, payload=payload))
        if document.policy.branches[0].names != ["cond", "uncond"] and self.name == "z-image":
            with (
                applied(pipe, document, allow_unsigned=True, weights_dir=folder) as policy,
                pytest.raises(CalibrationMismatch, match="in one forward"),
            ):
                call(policy.call_arguments)
            return
        with applied(pipe, document, allow_unsigned=True, weights_dir=folder) as policy:
            expected = call(policy.call_arguments)
        self.assert_close(runtime.run(document).latents, expected)


def test_a_policy_is_bound_to_an_export(
    profile: ModelProfile, folder: Path, document: PolicyDocument, export: Path, tmp_path: Path
) -> None:
    from budc.cli.generation.binding import BindRequest, bind_export
    from budc.schema.artifact import read, seal
    from budc.schema.digest_cache import DigestCache

    original = replace(document, model=replace(document.model, variants=document.model.variants[:-1]))
    bound = bind_export(
        BindRequest(
            artifact=read(seal(original, None)),
            export=export,
            profile=profile,
            weights=folder,
            samples=2,
            revision=None,
            digests=DigestCache(tmp_path / "digests"),
        )
    )
    assert bound.document.model.variants == document.model.variants
    assert bound.document.revision == original.revision + 1


def test_a_reused_step_does_not_read_the_text(export: Path) -> None:
    _, manifest = describe_export(export)
    assert "encoder_hidden_states" in {spec.name for spec in manifest.graphs["compute"].inputs}
    for name in ("reuse", "reuse_terms"):
        inputs = {spec.name for spec in manifest.graphs[name].inputs}
        assert "encoder_hidden_states" not in inputs
        # The mask says where Z-Image's cells stand, after the text.
        assert ("encoder_attention_mask" in inputs) == (manifest.family == "z-image")
