"""`budc run --runtime onnxruntime`: a process in which torch cannot be imported, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from progress_lines import begun
from tiny_folders import EXPORT_SHAPE

from budc.schema.artifact import seal

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
imageio = pytest.importorskip("imageio.v3")

PROMPT = "a red circle moves left"
HEAVY = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "onnxscript"}
WITHOUT_TORCH = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HEAVY}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from budc.cli import main
code = main(sys.argv[1:])
assert not {HEAVY} & sys.modules.keys()
sys.exit(code)
"""


@pytest.fixture(scope="module")
def bound(exported: Path, wan_folder: Path, make_document: Any, signer: Any, tmp_path_factory: Any) -> Path:
    """A signed policy of 3 out of 6 steps that lists the export."""
    from budc.compiler.models.binding import model_binding
    from budc.compiler.models.model import load_model
    from budc.policies.profile import load_profile
    from budc.runtimes.exported.folder import describe_export

    profile = load_profile("wan2.1-nano")
    model = model_binding(profile, wan_folder)
    variant, _ = describe_export(exported)
    document = make_document(
        model=msgspec.structs.replace(model, variants=[*model.variants, variant]),
        sampler=load_model(profile, wan_folder, torch.device("cpu")).sampler(6),
        shape=EXPORT_SHAPE,
    )
    path = tmp_path_factory.mktemp("bound") / "policy.budc.json"
    path.write_bytes(seal(document, signer))
    return path


@pytest.fixture
def run(budc: Any, bound: Path, public: Path, exported: Path) -> Any:
    def call(out: Path, *flags: object, weights: Path = exported) -> Any:
        command = ("run", bound, "--trust", public, "--runtime", "onnxruntime", "--prompt", PROMPT)
        return budc(*command, "--out", out, "--weights", weights, *flags)

    return call


def test_from_prompt_to_file_without_torch(
    bound: Path, public: Path, exported: Path, tmp_path: Path, read_video: Any
) -> None:
    out = tmp_path / "x.mp4"
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, "run", bound, "--trust", public]
    command += ["--runtime", "onnxruntime", "--weights", exported, "--prompt", PROMPT, "--out", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 NFE of 6 steps" in done.stdout
    assert "\nthis policy " in done.stdout
    assert done.stdout.rstrip().endswith("on cpu")
    assert [line.split(":")[0] for line in begun(done.stderr)[:-1]] == [
        "verify",
        "encode",
        "denoise",
        "decode",
    ]
    assert len(read_video(out, 256, 256)) == 5


def test_a_comparison_without_torch(bound: Path, public: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.png"
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        WITHOUT_TORCH,
        "run",
        bound,
        "--trust",
        public,
        "--compare",
    ]
    command += ["--runtime", "onnxruntime", "--weights", exported, "--prompt", PROMPT, "--out", out]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout[done.stdout.rindex("method  ") :].splitlines()
    assert head.split() == ["method", "NFE", "seconds", "latent-mse", "PSNR", "dB"]
    full, policy, fewer = ([*row.rsplit(maxsplit=4)] for row in rows[:3])
    assert [full[0], policy[0], fewer[0]] == ["full run", "policy", "fewer steps"]
    assert [full[1], policy[1], fewer[1]] == ["6", "3", "3"]
    assert full[3:] == ["–", "–"]
    for _, _, _, error, psnr in (policy, fewer):
        assert float(error) > 0
        assert 5 < float(psnr) <= 120
    assert "the loop took" in done.stdout
    # Three methods, one below the other, each with its five frames in a row.
    assert imageio.imread(out).shape[0] > 3 * 64


def test_a_plan_without_torch() -> None:
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH]
    command += [
        "plan",
        "--model",
        "flux-nano",
        "--budget",
        "4",
        "--steps",
        "12",
        "--for",
        "diffusers-magcache",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "forwards" in done.stdout


def test_pictures_are_those_of_the_other_runtime(
    run: Any, budc: Any, bound: Path, public: Path, wan_folder: Path, tmp_path: Path
) -> None:
    both = ("--prompt", "a blue cross rises", "--seed", "3")
    assert run(tmp_path / "onnx.png", *both).code == 0
    command = ("run", bound, "--trust", public, "--weights", wan_folder, "--prompt", PROMPT)
    outcome = budc(*command, "--out", tmp_path / "torch.png", *both)
    assert outcome.code == 0, outcome.err
    onnx, torch_ = (imageio.imread(tmp_path / f"{name}.png").astype(int) for name in ("onnx", "torch"))
    assert onnx.shape == (2 * 64 * 4, 5 * 64 * 4, 3)
    # Rounding to 8 bits can tip a value by one.
    assert abs(onnx - torch_).max() <= 1


def test_a_policy_attached_to_the_export_is_found(
    run: Any, budc: Any, bound: Path, public: Path, exported: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    assert budc("attach", bound, folder).code == 0
    command = ("run", folder, "--trust", public, "--runtime", "onnxruntime", "--prompt", PROMPT)
    outcome = budc(*command, "--out", tmp_path / "x.png", "--rehash")
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "x.png").exists()


def test_other_weights_are_refused_or_marked(
    run: Any, exported: Path, wan_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    weights = folder / "transformer" / "weights.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1])
    outcome = run(tmp_path / "x.png", weights=folder)
    assert outcome.code == 32
    assert "transformer/weights.onnx.data" in outcome.err
    assert run(tmp_path / "x.png", weights=wan_folder).code == 31
    assert run(tmp_path / "x.png", weights=tmp_path / "none").code == 31
    assert not (tmp_path / "x.png").exists()


def test_flags_that_do_not_go_together(
    run: Any, budc: Any, bound: Path, public: Path, tmp_path: Path
) -> None:
    command = ("run", bound, "--trust", public, "--prompt", PROMPT, "--out", tmp_path / "x.png")
    outcome = budc(*command, "--provider", "cpu")
    assert outcome.code == 2
    assert "--provider: only with --runtime onnxruntime" in outcome.err
    outcome = budc(*command, "--runtime", "onnxruntime")
    assert outcome.code == 2
    assert "budc export onnx" in outcome.err


def test_a_missing_provider_is_an_error_that_says_how_to_get_it(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    outcome = run(tmp_path / "x.png", "--provider", "cuda")
    assert outcome.code == 62
    assert "pip install" in outcome.err
    assert run(tmp_path / "x.png", "--provider", "tpu").code == 2
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("package", ["onnxruntime", "onnx", "tokenizers"])
def test_missing_packages_name_the_extra(
    run: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    outcome = run(tmp_path / "x.png")
    assert outcome.code == 60
    assert f"{package} is not installed; it comes with budc[onnx]" in outcome.err
