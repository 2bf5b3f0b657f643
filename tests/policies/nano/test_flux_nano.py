"""The embedded FLUX on the whole road: one picture, a compile, and the pipeline under the policy."""

import warnings

import msgspec
import pytest

torch = pytest.importorskip("torch")

import budc  # noqa: E402
import budc.compiler.request as requests  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.request import CompileRequest  # noqa: E402
from budc.compiler.rollouts.policies import full_policy  # noqa: E402
from budc.policies.nano.evaluation.subjects import SUBJECTS  # noqa: E402
from budc.policies.profile import find_weights, load_profile, read_prompts  # noqa: E402
from budc.policies.samples import HELD_OUT_SEED  # noqa: E402
from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.schema.policy import Budget  # noqa: E402

STEPS = 8
PROFILE = load_profile("flux-nano")
FOLDER = find_weights(PROFILE, None)


@pytest.fixture(scope="module")
def pipe():
    loaded = SUBJECTS["flux-nano"].pipeline.from_pretrained(FOLDER)
    loaded.set_progress_bar_config(disable=True)
    return loaded


def picture(pipe, prompt, seed=HELD_OUT_SEED, output="latent"):
    return pipe(
        prompt,
        num_inference_steps=STEPS,
        guidance_scale=PROFILE.guidance,
        generator=torch.Generator().manual_seed(seed),
        output_type=output,
        **SUBJECTS["flux-nano"].settings,
    ).images


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """A policy of 4 out of 8 steps, searched on two prompts and reported on two others."""
    folder = tmp_path_factory.mktemp("flux-nano")
    prompts = folder / "prompts.txt"
    prompts.write_text("\n".join(read_prompts(PROFILE.prompts.calibration, 2)))

    def smaller(name):
        profile = load_profile(name)
        return msgspec.structs.replace(
            profile, prompts=msgspec.structs.replace(profile.prompts, held_out_size=2)
        )

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(requests, "choose_model", smaller)
        (artifact,) = compile_artifacts(
            CompileRequest(
                model="flux-nano",
                budget="4",
                steps=STEPS,
                search="dp",
                calibration=prompts,
                out=folder / "flux.budc.json",
            ).resolve()
        )
    return artifact.document


def under(pipe, document, prompt):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        with budc.applied(pipe, document, allow_unsigned=True) as handle:
            latents = picture(pipe, prompt)
            assert handle.uncalibrated == ()
    return latents


def test_a_picture_has_its_size_and_follows_from_prompt_and_seed(pipe):
    image = picture(pipe, "a large red circle at the left over stripes", 1, "pt")
    assert image.shape == (1, 3, 64, 64)
    assert image.dtype == torch.float32
    assert torch.equal(image, picture(pipe, "a large red circle at the left over stripes", 1, "pt"))
    assert not torch.equal(image, picture(pipe, "a large red circle at the left over stripes", 2, "pt"))
    assert not torch.equal(image, picture(pipe, "a small blue cross at the right over checks", 1, "pt"))


def test_weights_are_stored_in_half_and_load_in_single(pipe):
    assert {part.dtype for part in (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)} == {
        torch.float32
    }
    stored = sum(path.stat().st_size for path in FOLDER.rglob("*.safetensors"))
    parts = (pipe.transformer, pipe.vae, pipe.text_encoder, pipe.text_encoder_2)
    assert stored == pytest.approx(2 * sum(p.numel() for part in parts for p in part.parameters()), rel=0.02)


def test_computing_every_step_is_the_untouched_pipeline_bit_for_bit(pipe, document):
    full = msgspec.structs.replace(
        document,
        policy=full_policy(STEPS, ("cond",)),
        budget=Budget(requested=str(STEPS), nfe=STEPS, branches={"cond": STEPS}),
    )
    prompt = read_prompts(PROFILE.prompts.held_out, 1)[0]
    assert torch.equal(under(pipe, full, prompt), picture(pipe, prompt))


def test_a_policy_runs_as_it_was_rolled_out(pipe, document):
    assert document.model.family == PROFILE.family
    assert document.budget.nfe == 4
    prompt = read_prompts(PROFILE.prompts.held_out, 1)[0]
    model = load_model(PROFILE, FOLDER, torch.device("cpu"))
    conditions = encode_prompts(model, [prompt], range(HELD_OUT_SEED, HELD_OUT_SEED + 1))
    made = under(pipe, document, prompt)
    assert torch.equal(made, PipelineRollout(model).run(document.policy, document.sampler, conditions))
    assert not torch.equal(made, picture(pipe, prompt))
