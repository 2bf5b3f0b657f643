import re
import shutil

import pytest
from lora import write_lora
from progress_lines import begun

from budc.runtimes.exported.manifest import MANIFEST
from budc.schema.artifact import open_artifact, seal
from budc.schema.trust import Trust

torch = pytest.importorskip("torch")
imageio = pytest.importorskip("imageio.v3")

PROMPT = "a red circle moves left"


@pytest.fixture
def run(budc, compiled):
    """Call `budc run` on the compiled policy: `run(out, "--compare")`."""

    def call(out, *flags, file=compiled.path, weights=compiled.weights):
        return budc("run", file, "--prompt", PROMPT, "--weights", weights, "--out", out, *flags)

    return call


def rows(outcome):
    """Return the comparison table as method -> cells."""
    cells = {}
    for line in outcome.out.splitlines():
        for name in ("full run", "policy", "fewer steps"):
            if line.startswith(name):
                cells[name] = line.removeprefix(name).split()
    return cells


def test_png_has_a_row_a_prompt(run, compiled, tmp_path):
    outcome = run(tmp_path / "x.png", "--trust", compiled.public, "--prompt", "a blue cross rises")
    assert outcome.code == 0, outcome.err
    assert imageio.imread(tmp_path / "x.png").shape == (2 * 32 * 4, 5 * 48 * 4, 3)
    assert "3 NFE of 6 steps" in outcome.out
    *stages, taken = [line.split(":")[0] for line in begun(outcome.err)]
    assert stages == ["verify", "load", "import", "verify", *2 * ["encode", "denoise", "decode"]]
    assert re.fullmatch(r"(\w+ \d+\.\d s(, |$)){5}", taken)


def test_compare(run, compiled, tmp_path, read_video):
    outcome = run(tmp_path / "x.mp4", "--trust", compiled.public, "--compare", "--seed", "7")
    assert outcome.code == 0, outcome.err
    table = rows(outcome)
    assert [cells[0] for cells in table.values()] == ["6", "3", "3"]
    assert table["full run"][2:] == ["–", "–"]
    assert 0 < float(table["policy"][2]) != float(table["fewer steps"][2]) > 0
    assert all(float(cells[1]) > 0 for cells in table.values())
    assert len(read_video(tmp_path / "x.mp4", 32 * 4 + 2 * 18, 3 * 48 * 4)) == 5
    assert re.search(r"; the loop took .* on cpu, \d+ threads?\n\nmethod .*\nthis policy ", outcome.out)


def test_an_export_is_recognised(run, compiled, tmp_path):
    (tmp_path / MANIFEST).touch()
    outcome = run(tmp_path / "x.png", weights=tmp_path)
    assert outcome.code == 2
    assert f"{tmp_path} is an export to ONNX" in outcome.err
    assert f"budc run {compiled.path} --runtime onnxruntime --weights {tmp_path}" in outcome.err
    assert "is an export to ONNX" in run(tmp_path / "x.png", file=tmp_path, weights=compiled.weights).err


def test_a_policy_that_computes_everything_is_the_full_run(run, compiled, signed_like, tmp_path):
    whole = signed_like(lambda mask: [True] * len(mask))
    outcome = run(tmp_path / "x.png", "--allow-unsigned", "--compare", file=whole)
    assert outcome.code == 0, outcome.err
    assert rows(outcome)["policy"][2:] == ["0", "120.0"]


@pytest.fixture
def signed_like(compiled, tmp_path):
    """Write an unsigned copy of the compiled policy with another mask."""
    import msgspec

    def write(change):
        document = open_artifact(compiled.path, Trust.from_pem(compiled.public)).document
        branch = document.policy.branches[0]
        mask = change(branch.mask)
        predictor = [[] if computed else [1.0] for computed in mask]
        branch = msgspec.structs.replace(branch, mask=mask, predictor=predictor)
        nfe = sum(mask)
        document = msgspec.structs.replace(
            document,
            policy=msgspec.structs.replace(document.policy, branches=[branch]),
            budget=msgspec.structs.replace(
                document.budget, nfe=nfe, branches=dict.fromkeys(document.budget.branches, nfe)
            ),
        )
        path = tmp_path / "unsigned.budc.json"
        path.write_bytes(seal(document, None))
        return path

    return write


def test_settings_prompts_and_adapters_of_one_s_own_run_as_they_were_compiled(budc, weights, tmp_path):
    from diffusers import WanTransformer3DModel

    style = write_lora(
        tmp_path / "style.safetensors",
        WanTransformer3DModel.from_pretrained(weights, subfolder="transformer"),
    )
    (tmp_path / "mine.jsonl").write_text(
        '{"prompt": "a red circle", "seed": 3}\n{"prompt": "a blue cross"}\n'
    )
    (tmp_path / "held-out.csv").write_text("prompt,seed\na green star,4\n")
    policy, model = tmp_path / "mine.budc.json", ("--weights", weights)
    outcome = budc(
        *("compile", "--model", "wan2.1-nano", "--steps", "4", "--mask", "#.#.", *model, "--out", policy),
        *(
            "--height",
            "32",
            "--width",
            "48",
            "--frames",
            "5",
            "--guidance",
            "3",
            "--negative",
            "a yellow box",
        ),
        *("--scheduler", "FlowMatchEulerDiscreteScheduler", "--lora", f"{style}:0.5"),
        *("--calibration", tmp_path / "mine.jsonl", "--held-out", tmp_path / "held-out.csv"),
    )
    assert outcome.code == 0, outcome.err
    for line in ("negative prompt  'a yellow box'", "adapter          style at scale 0.5 in every denoiser"):
        assert line in outcome.out
    run = ("run", policy, "--allow-unsigned", "--prompt", PROMPT, *model, "--out", tmp_path / "x.png")
    outcome = budc(*run, "--lora", f"{style}:0.5")
    assert outcome.code == 0, outcome.err
    assert "uncalibrated" not in outcome.err
    for flags, code, message in (
        ([], 2, "--lora: the policy was calibrated with style at scale 0.5"),
        (["--lora", style], 41, "scale of style: the policy was calibrated for 0.5, this run has 1"),
        (
            ["--lora", f"{style}:0.5", "--negative", "dark"],
            41,
            "calibrated for 'a yellow box', this run has 'dark'",
        ),
    ):
        outcome = budc(*run, *flags)
        assert outcome.code == code, outcome.err
        assert message in outcome.err


def test_unsigned_only_with_the_flag_and_said_each_time(run, compiled, signed_like, tmp_path):
    unsigned = signed_like(lambda mask: mask)
    assert run(tmp_path / "x.png", "--trust", compiled.public, file=unsigned).code == 21
    assert not (tmp_path / "x.png").exists()
    outcome = run(tmp_path / "x.png", "--allow-unsigned", file=unsigned)
    assert outcome.code == 0
    assert outcome.err.count("unsigned:") == 1
    assert outcome.err.startswith(f"unsigned: nobody vouches for {unsigned}\n")


def test_the_flag_does_not_let_untrusted_signatures_pass(run, tmp_path):
    outcome = run(tmp_path / "x.png", "--allow-unsigned")
    assert outcome.code == 23
    assert "--trust PUB" in outcome.err


def test_other_weights_are_refused_or_marked(run, compiled, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(compiled.weights, folder)
    path = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    outcome = run(tmp_path / "x.png", "--trust", compiled.public, weights=folder)
    assert outcome.code == 32
    assert not (tmp_path / "x.png").exists()
    outcome = run(tmp_path / "x.png", "--trust", compiled.public, "--allow-uncalibrated", weights=folder)
    assert outcome.code == 0
    assert outcome.err.count("uncalibrated") == outcome.err.count("\nuncalibrated: weights: ") == 1


def test_pickled_weights_are_not_loaded(run, compiled, tmp_path):
    folder = tmp_path / "weights"
    shutil.copytree(compiled.weights, folder)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    outcome = run(tmp_path / "x.png", "--trust", compiled.public, weights=folder)
    assert outcome.code == 31


@pytest.mark.parametrize(("name", "code"), [("x.avi", 2), ("x", 2), ("none/x.png", 61)])
def test_targets_are_refused_before_the_artifact_is_opened(run, tmp_path, name, code):
    assert run(tmp_path / name, file=tmp_path / "no-artifact").code == code


def test_a_model_that_the_package_does_not_ship_is_in_a_folder_of_the_users(budc, sealed, public, tmp_path):
    outcome = budc("run", sealed(), "--trust", public, "--prompt", PROMPT, "--out", tmp_path / "x.png")
    assert outcome.code == 31
    assert "wan: neither the profile nor --weights names its folder" in outcome.err


def test_empty_prompt(run, tmp_path):
    assert run(tmp_path / "x.png", "--prompt", " ").code == 2
