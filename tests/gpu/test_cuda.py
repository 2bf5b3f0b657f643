"""What only a CUDA device has: CUDA graphs, offloading, memory that runs out, a compile on the device.

pytest -m gpu
"""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")


from random_models.sampling import keep_outputs  # noqa: E402

from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.policies.profile import find_weights, load_profile, read_prompts  # noqa: E402
from budc.policies.samples import HELD_OUT_SEED  # noqa: E402
from budc.runtimes.diffusers.apply import applied  # noqa: E402
from budc.runtimes.diffusers.pipeline import load_pipeline  # noqa: E402

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning"),
]
NFE, STEPS = 5, 12
MODELS = ["wan2.1-nano", "flux-nano"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=MODELS)
def profile(request, cuda):
    return load_profile(request.param)


@pytest.fixture(scope="module")
def folder(profile):
    return find_weights(profile, None)


@pytest.fixture(scope="module")
def artifact(profile, tmp_path_factory):
    """A policy that was searched on the device, with predictors of several terms."""
    out = tmp_path_factory.mktemp("compiled") / "p.budc.json"
    request = CompileRequest(model=profile.name, budget=str(NFE), steps=STEPS, search="dp", out=out)
    return compile_artifacts(request.resolve())[0]


@pytest.fixture
def run(profile, folder, cuda):
    """Run the pipeline on the device: `run(pipe)` returns the final latents on the CPU."""
    prompt = read_prompts(profile.prompts.held_out)[0]

    def call(pipe):
        video = {} if profile.frames == 1 else {"num_frames": profile.frames}
        return pipe(
            prompt,
            height=profile.height,
            width=profile.width,
            max_sequence_length=profile.text_tokens,
            guidance_scale=profile.guidance,
            num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(HELD_OUT_SEED),
            output_type="latent",
            return_dict=False,
            **video,
        )[0].cpu()

    return call


@pytest.fixture
def pipe(profile, folder, cuda):
    pipe = load_pipeline(profile, weights=folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(cuda)


@pytest.fixture
def expected(pipe, run, artifact, folder):
    """What the policy makes of the prompt, eager and without offloading."""
    with applied(pipe, artifact, allow_unsigned=True, weights_dir=folder):
        return run(pipe)


def conditions(model, count):
    prompts = read_prompts(model.profile.prompts.held_out, count)
    return encode_prompts(model, prompts, range(HELD_OUT_SEED, HELD_OUT_SEED + count))


def close(actual, wanted, tolerance):
    return (actual - wanted).abs().max() <= tolerance * wanted.abs().max()


def test_the_pipeline_runs_what_the_search_rolled_out(profile, folder, artifact, expected, cuda):
    model = load_model(profile, folder, cuda)
    rolled = PipelineRollout(model).run(
        artifact.document.policy, artifact.document.sampler, conditions(model, 1)
    )
    assert close(rolled, expected, 1e-4)
    on_cpu = load_model(profile, folder, torch.device("cpu"))
    rolled = PipelineRollout(on_cpu).run(
        artifact.document.policy, artifact.document.sampler, conditions(on_cpu, 1)
    )
    assert close(rolled, expected, 1e-2)


# What the compiler warns of (names that it will drop, faster multiplication) is no business of a policy.
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_graphs_make_the_same_latents(mode, pipe, run, artifact, folder, expected):
    torch._dynamo.reset()
    pipe.transformer.compile(fullgraph=True, mode=mode)
    keep_outputs(pipe.transformer)
    with applied(pipe, artifact, allow_unsigned=True, weights_dir=folder):
        first, second = run(pipe), run(pipe)
    assert torch.equal(first, second)
    assert close(first, expected, 1e-3)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_offloading(how, when, pipe, run, artifact, folder, expected):
    pytest.importorskip("accelerate")
    pipe.to("cpu")
    if when == "before":
        getattr(pipe, how)()
    with applied(pipe, artifact, allow_unsigned=True, weights_dir=folder):
        if when == "after":
            getattr(pipe, how)()
        assert close(run(pipe), expected, 1e-5)
        assert close(run(pipe), expected, 1e-5)


@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
@pytest.mark.parametrize("stream", [False, True])
def test_group_offloading(level, stream, pipe, run, artifact, folder, expected, cuda):
    groups = {"num_blocks_per_group": 1} if level == "block_level" else {}
    pipe.transformer.enable_group_offload(
        onload_device=cuda,
        offload_device=torch.device("cpu"),
        offload_type=level,
        use_stream=stream,
        **groups,
    )
    with applied(pipe, artifact, allow_unsigned=True, weights_dir=folder):
        assert close(run(pipe), expected, 1e-5)


def test_memory_that_runs_out_halves_the_batch_and_changes_nothing(profile, folder, artifact, cuda):
    model = load_model(profile, folder, cuda)
    some, sampler = conditions(model, 64), artifact.document.sampler
    rollout = PipelineRollout(model, batch=4)
    expected = rollout.run(artifact.document.policy, sampler, some)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    rollout.run(artifact.document.policy, sampler, some)
    limit = 2 * torch.cuda.max_memory_reserved() / torch.cuda.get_device_properties(cuda).total_memory
    halved = []
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit, cuda)
    try:
        rolled = PipelineRollout(model, batch=64, halved=halved.append).run(
            artifact.document.policy, sampler, some
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, cuda)
    assert halved
    assert halved == sorted(halved, reverse=True)
    assert close(rolled, expected, 1e-4)


def test_one_seed_gives_one_payload_on_the_device(profile, artifact, tmp_path):
    request = CompileRequest(
        model=profile.name, budget=str(NFE), steps=STEPS, search="dp", out=tmp_path / "again.budc.json"
    )
    again = compile_artifacts(request.resolve())[0].document
    first = msgspec.structs.replace(artifact.document, issued_at=again.issued_at)
    assert again == first


def test_the_benchmark_measures_every_mode(tmp_path, cuda):
    command = [
        *(sys.executable, "benchmarks/gpu.py", "--models", ",".join(MODELS)),
        *("--prompts", "2", "--repeats", "1", "--peers", "MagCache", "--json", tmp_path / "r.json"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["mode"] for row in rows[:3]] == ["eager", "compiled", "CUDA graphs"]
    assert all(row["peakBytes"] > 0 for row in rows)
