"""What the compiler rolls out is what the pipeline generates."""

import pytest
import torch
from diffusers import WanPipeline

from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.rollouts.policies import forwards_per_sample, full_policy, shared_policy
from budc.policies.profile import load_profile
from budc.runtimes.diffusers.apply import applied
from budc.schema.errors import DeviceMemory
from budc.schema.mask import StepMask
from budc.schema.policy import Shape
from budc.schema.predictor import Predictor

BRANCHES = ("cond", "uncond")
CALL = {"height": 64, "width": 64, "num_frames": 9, "max_sequence_length": 32, "guidance_scale": 5.0}


def generate(pipe, reference, steps):
    return pipe(
        [sample.prompt for sample in reference.samples[:2]],
        generator=[torch.Generator().manual_seed(sample.seed) for sample in reference.samples[:2]],
        num_inference_steps=steps,
        output_type="latent",
        **CALL,
    ).frames


@pytest.fixture
def pipe(wan_folder):
    pipe = WanPipeline.from_pretrained(wan_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_a_full_rollout_is_the_untouched_pipeline_bit_for_bit(pipe, reference, sampler):
    assert torch.equal(reference.latents[:2], generate(pipe, reference, sampler.steps))


@pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")
@pytest.mark.parametrize(
    "rows",
    [((), (1.0,), (), (1.0,), (1.0,), (1.0,)), ((), (1.0,), (), (1.5, -0.5), (), (1.25, -0.5, 0.25))],
    ids=str,
)
def test_a_cached_rollout_is_the_pipeline_with_the_policy_applied(
    pipe, reference, sampler, pipeline_rollout, make_document, wan_folder, rows
):
    from budc.compiler.models.binding import model_binding

    mask = StepMask.of([not row for row in rows])
    policy = shared_policy(mask, Predictor.of(rows, mask), BRANCHES)
    document = make_document(
        mask=mask,
        policy=policy,
        sampler=sampler,
        model=model_binding(load_profile("wan2.1-nano"), wan_folder),
        shape=Shape(height=64, width=64, frames=9, dtype="float32", text_tokens=32),
    )
    rolled = pipeline_rollout.run(policy, sampler, reference.conditions.part(0, 2))
    with applied(pipe, document, allow_unsigned=True, weights_dir=wan_folder):
        generated = generate(pipe, reference, sampler.steps)
    assert torch.equal(rolled, generated)
    assert not torch.equal(rolled, reference.latents[:2])


def test_forwards_are_counted_per_sample_and_branch(pipeline_rollout, sampler, reference):
    pipeline_rollout.forwards = 0
    mask = StepMask.from_compute_steps(sampler.steps, (0, 2, 5))
    policy = shared_policy(mask, Predictor.plain_reuse(mask), BRANCHES)
    assert forwards_per_sample(policy) == 3 * len(BRANCHES)
    pipeline_rollout.run(policy, sampler, reference.conditions)
    assert pipeline_rollout.forwards == 3 * len(BRANCHES) * len(reference.conditions)


def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(
    pipeline_rollout, sampler, reference, monkeypatch, capsys
):
    expected = pipeline_rollout.run(
        full_policy(sampler.steps, BRANCHES), sampler, reference.conditions.part(0, 1)
    )
    whole = PipelineRollout._roll

    def small_device(self, policy, sampler, conditions):
        if len(conditions) > 1:
            raise torch.cuda.OutOfMemoryError("no room")
        return whole(self, policy, sampler, conditions)

    before = pipeline_rollout.forwards
    monkeypatch.setattr(PipelineRollout, "_roll", small_device)
    from budc.progress import progress

    with progress("test", 1) as bar:
        latents = pipeline_rollout.run(
            full_policy(sampler.steps, BRANCHES), sampler, reference.conditions, bar
        )
    assert pipeline_rollout.batch == 1
    assert len(latents) == len(reference.conditions)
    assert torch.equal(latents[:1], expected)
    # What was tried and did not fit is not counted.
    assert pipeline_rollout.forwards == before + sampler.steps * len(BRANCHES) * len(reference.conditions)
    assert "batches of 1" in capsys.readouterr().err


def test_memory_that_never_suffices_is_an_error_of_its_own(pipeline_rollout, sampler, reference, monkeypatch):
    def no_device(self, policy, sampler, conditions):
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(PipelineRollout, "_roll", no_device)
    with pytest.raises(DeviceMemory, match="one sample"):
        pipeline_rollout.run(full_policy(sampler.steps, BRANCHES), sampler, reference.conditions)


def test_decoded_frames_are_the_pipelines(pipe, reference, model):
    latents = reference.latents[:2]
    decode = model.adapter.decoder(model.folder, model.profile, model.device)
    frames = torch.cat([decode(sample) for sample in latents.split(1)])
    generated = pipe(
        [sample.prompt for sample in reference.samples[:2]],
        generator=[torch.Generator().manual_seed(sample.seed) for sample in reference.samples[:2]],
        num_inference_steps=6,
        output_type="pt",
        **CALL,
    ).frames
    assert frames.shape == (2, 3, 9, 64, 64)
    assert torch.allclose(frames, generated.transpose(1, 2), atol=1e-6)
