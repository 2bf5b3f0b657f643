"""What workers measure of a model is what one process measures."""

from dataclasses import replace

import fake_ray
import pytest
import torch

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import encode_samples, stored_latents
from budc.compiler.evaluation.report import frame_levels, measure_elsewhere
from budc.compiler.models.binding import model_binding
from budc.compiler.models.denoiser import model_denoiser
from budc.compiler.rollouts.policies import full_policy
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.storage.journal import Journal
from budc.compiler.workers.model_workers import LoadModel, ModelWorkers
from budc.compiler.workers.pool import Pool
from budc.compiler.workers.ray_cluster import Share
from budc.compiler.workers.started_worker import Starter
from budc.policies.profile import read_prompts
from budc.policies.samples import samples_of
from budc.schema.errors import WeightsMismatch

CPU = torch.device("cpu")


@pytest.fixture
def pool():
    pool = Pool(Starter(fake_ray.FakeRay(), Share(1, 0), CPU, torch.get_num_threads()))
    pool.start(2)
    return pool


@pytest.fixture
def conditions(model, prompt_file):
    return encode_samples(model, samples_of(read_prompts(prompt_file), "", 7))


def test_chunks_and_frames(model, sampler, conditions, pool, tmp_path):
    policy, measured = full_policy(sampler.steps, model.profile.branches), []
    for name in ("alone", "together"):
        with Journal(tmp_path / name, "print", jobs=3) as journal:
            workers = ModelWorkers(pool, model).report(journal, conditions) if name == "together" else None
            rollout = PipelineRollout(model, workers=workers)
            latents = stored_latents(rollout, policy, sampler, conditions, journal, "full")
            worse = {"worse": latents + 0.1}
            if workers is not None:
                measure_elsewhere(workers, worse, latents, journal, "frames")
                assert {f"frames {index}" for index in range(3)} <= journal.records.keys()
            levels = frame_levels(model, worse, latents, journal, "frames")
            measured.append((latents.tolist(), rollout.forwards, levels))
    assert measured[0] == measured[1]


def test_a_reference_run(model, sampler, conditions, pool, tmp_path):
    form = NoiseSchedule.of(model.scheduler, sampler.sigmas, sampler.timesteps).linear_form()
    runs = []
    for name in ("alone", "together"):
        with Journal(tmp_path / name, "print", jobs=3) as journal:
            elsewhere = None
            if name == "together":
                given = journal, conditions, sampler.steps, "some run"
                elsewhere = ModelWorkers(pool, model).reference_run(*given).reference_chunks
            network = BatchedDenoiser(model_denoiser(model), conditions)
            runs.append(reference_run(network, form, journal, "some run", elsewhere=elsewhere))
    assert torch.equal(runs[0].states, runs[1].states)
    assert all(torch.equal(runs[0].gram[name], runs[1].gram[name]) for name in runs[0].gram)


def test_other_files_are_refused(model, pool):
    binding = model_binding(model.profile, model.folder)
    other = LoadModel(model.profile, model.folder, "cpu", binding)
    pool.set_up(other)
    with pytest.raises(WeightsMismatch, match=r"worker 1 on host-a: .*: the model's files are not those"):
        pool.set_up(replace(other, binding=None))
