"""FLUX from a compile to a picture made by ONNX Runtime: two text encoders, packed latents, guidance built in."""

import json

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("PIL")

from PIL import Image  # noqa: E402
from tiny_profiles import small_profiles  # noqa: E402

from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.runtimes.exported.manifest import read_manifest  # noqa: E402
from budc.runtimes.onnxruntime.pipeline import UnsignedWarning, load  # noqa: E402
from budc.schema.artifact import read  # noqa: E402
from budc.schema.errors import CalibrationMismatch  # noqa: E402

pytestmark = pytest.mark.slow

PROMPT = "a small red circle over stripes"


@pytest.fixture(scope="module")
def profile(tmp_path_factory):
    """A profile for the tiny pipeline."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        add = small_profiles(monkeypatch, tmp_path_factory.mktemp("shelf") / "profiles")
        yield load_profile(add("flux-tiny", "flux.1-dev", height=32, width=48, text_tokens=24))


@pytest.fixture(scope="module")
def export(budc, profile, flux_folder, tmp_path_factory):
    """The export of the tiny pipeline."""
    folder = tmp_path_factory.mktemp("exports") / "flux"
    done = budc(
        "export", "onnx", "--model", profile.name, "--weights", flux_folder, "--out", folder, "--json"
    )
    assert done.code == 0, done.err
    assert max(done.record["differences"].values()) < 1e-5
    return folder


@pytest.fixture(scope="module")
def bound(budc, export, profile, flux_folder, tmp_path_factory):
    """A policy whose predictors have several terms, bound to the export."""
    folder = tmp_path_factory.mktemp("bound")
    request = CompileRequest(
        model=profile.name,
        budget="4",
        steps=8,
        search="dp",
        weights=flux_folder,
        out=folder / "p.budc.json",
    )
    (artifact,) = compile_artifacts(request.resolve())
    assert max(len(row) for branch in artifact.document.policy.branches for row in branch.predictor) > 1
    assert budc("keygen", "--out", folder / "release").code == 0
    done = budc(
        *("bind", folder / "p.budc.json", "--variant", export, "--key", folder / "release.key"),
        *("--weights", flux_folder, "--samples", "2", "--allow-unsigned", "--json"),
        *("--out", folder / "bound.budc.json"),
    )
    assert done.code == 0, done.err
    return folder / "bound.budc.json"


def test_the_manifest_says_how_flux_is_called(export, profile):
    manifest = read_manifest(export)
    assert manifest.packed
    channels, rows, columns = manifest.latents
    assert manifest.sample == (rows * columns // 4, 4 * channels)
    assert manifest.guidance == profile.guidance
    assert manifest.conditions == ("encoder_hidden_states", "pooled_projections")
    assert manifest.text.tokens == profile.text_tokens == 24
    assert manifest.pooled_text.tokens == 16
    inputs = {name: [spec.name for spec in graph.inputs] for name, graph in manifest.graphs.items()}
    assert inputs["text_encoder"] == ["input_ids", "pooled_input_ids"]
    # What time and text make together is needed by the final norm, the token states by the blocks alone.
    assert inputs["reuse"] == ["hidden_states", "timestep", "pooled_projections", "residual"]


def test_both_runtimes_make_the_same_picture(budc, bound, export, flux_folder, tmp_path):
    public = bound.with_name("release.pub")
    common = ("run", bound, "--trust", public, "--prompt", PROMPT, "--seed", "3")
    onnx = budc(*common, "--runtime", "onnxruntime", "--weights", export, "--out", tmp_path / "onnx.png")
    assert onnx.code == 0, onnx.err
    plain = budc(*common, "--weights", flux_folder, "--out", tmp_path / "torch.png")
    assert plain.code == 0, plain.err
    actual, expected = (np.asarray(Image.open(tmp_path / name), int) for name in ("onnx.png", "torch.png"))
    assert actual.shape == expected.shape
    assert expected.std() > 1
    # Rounding to whole values may fall either way.
    assert np.abs(actual - expected).max() <= 1


def test_the_final_latents_are_those_of_the_pipeline(bound, export, profile, flux_folder):
    from diffusers import FluxPipeline

    from budc.runtimes.diffusers.apply import applied

    artifact = read(bound)
    pipe = FluxPipeline.from_pretrained(flux_folder)
    pipe.set_progress_bar_config(disable=True)
    with applied(pipe, artifact, trust=bound.with_name("release.pub"), weights_dir=flux_folder):
        expected = pipe(
            PROMPT,
            height=profile.height,
            width=profile.width,
            max_sequence_length=profile.text_tokens,
            guidance_scale=profile.guidance,
            num_inference_steps=8,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).images.numpy()
    actual = load(artifact, export, trust=bound.with_name("release.pub")).generate(PROMPT, seed=3).latents
    assert np.abs(actual - expected).max() < 1e-4 * np.abs(expected).max()


def test_another_guidance_than_the_graphs_have_is_refused(bound, export):
    document = read(bound).document
    other = msgspec.structs.replace(document, sampler=msgspec.structs.replace(document.sampler, guidance=2.5))
    with (
        pytest.warns(UnsignedWarning),
        pytest.raises(CalibrationMismatch, match=r"guidance: .* 2\.5, .* 3\.5"),
    ):
        load(other, export, allow_unsigned=True)


def test_no_torch_is_imported(bound, export):
    import subprocess
    import sys

    code = f"""
import json, sys
from budc.runtimes.onnxruntime.pipeline import load
pipe = load({str(bound)!r}, {str(export)!r}, trust={str(bound.with_name("release.pub"))!r})
clip = pipe.generate({PROMPT!r})
print(json.dumps([clip.frames.shape, "torch" in sys.modules, "transformers" in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [[1, 32, 48, 3], False, False]
