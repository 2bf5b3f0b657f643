"""An untrained model with a short schedule, loaded once, and denoisers that are formulas."""

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
import torch
from diffusers import DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import WeightedGuidance
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout
from budc.compiler.evaluation.reference import reference_set
from budc.compiler.models.model import load_model
from budc.compiler.rollouts.forest import Forest
from budc.compiler.rollouts.node_memory import MEMORY
from budc.compiler.rollouts.reference_run import reference_run
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.rollouts.tree import Tree
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.policies.profile import AnnealingSettings, load_profile, read_prompts
from budc.policies.samples import samples_of

STEPS = 6
CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def quick_collections(frozen_libraries):
    """What is compiled here need not come from a folder of `tiny_folders`."""


@pytest.fixture(scope="session")
def model(wan_folder):
    return load_model(load_profile("wan2.1-nano"), wan_folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def eight_prompts(wan_folder, tmp_path_factory):
    """Flags of a fast compile for the untrained model, on six steps, eight prompts and one held out."""
    folder = tmp_path_factory.mktemp("eight")
    prompts, held_out = folder / "prompts.txt", folder / "held-out.txt"
    prompts.write_text("".join(f"a small red circle {side}\n" for side in "abcdefgh"))
    held_out.write_text("a tiny green dot sails right over stripes\n")
    return {
        "model": "wan2.1-nano",
        "steps": 6,
        **{"height": 32, "width": 48, "frames": 5},
        "weights": wan_folder,
        "calibration": prompts,
        "held_out": held_out,
        "effort": "fast",
        "out": folder / "policy.budc.json",
    }


@pytest.fixture(scope="session")
def sampler(model):
    return model.sampler(STEPS)


@pytest.fixture
def pipeline_rollout(model):
    return PipelineRollout(model, batch=2)


@pytest.fixture
def journal(tmp_path):
    with Journal(tmp_path / "journal", "print") as journal:
        yield journal


@pytest.fixture
def reference(pipeline_rollout, sampler, prompt_file, journal):
    samples = samples_of(read_prompts(prompt_file), "", 7)
    return reference_set(pipeline_rollout, sampler, samples, journal, "test full")


@dataclass
class Toy(WeightedGuidance):
    """The exact velocity of a flow from noise to two clusters about a point that the condition names.

    Each coordinate of the data is condition ± 1 with a spread of 0.3. The trunk residual is an odd, slightly bent
    function of the expected data, so that the head is not linear in it. `calls` counts rows of every forward.
    """

    weights: dict[str, float] = field(default_factory=lambda: {"cond": 3.0, "uncond": -2.0})
    device: torch.device = CPU
    calls: list[int] = field(default_factory=list)

    def compute(self, latents, timestep, condition):
        self.calls.append(len(latents))
        sigma = timestep / 1000
        spread = 0.3**2 * (1 - sigma) ** 2 + sigma**2
        left = latents - (1 - sigma) * condition
        sign = torch.tanh(left * (1 - sigma) / spread)
        around = condition + sign
        data = around + 0.3**2 * (1 - sigma) / spread * (latents - (1 - sigma) * around)
        residual = torch.asinh(data)
        return self.reuse(residual, latents, timestep, condition), residual

    def reuse(self, residual, latents, timestep, condition):
        return (latents - torch.sinh(residual)) / (timestep / 1000)


@dataclass
class Ringing(WeightedGuidance):
    """A velocity that depends on time alone, turning in a plane that the condition (n, 2, size) spans.

    Once two steps are computed, every other one is a combination of them, the same for all prompts.
    """

    weights: dict[str, float] = field(default_factory=lambda: {"only": 1.0})
    device: torch.device = CPU
    frequency: float = 3.0

    def compute(self, latents, timestep, condition):
        angle = self.frequency * timestep / 1000
        velocity = condition[:, 0] * torch.cos(angle) + condition[:, 1] * torch.sin(angle)
        return velocity, velocity

    def reuse(self, residual, latents, timestep, condition):
        return residual


@dataclass
class Glitches(WeightedGuidance):
    """The mean of a condition (n, 12), and at twelfths of the way a glitch that turns from one to the next.

    All twelve glitches add up to nothing, so that the run of all twelve steps ends where a constant velocity ends;
    but no few of them say what the others are.
    """

    weights: dict[str, float] = field(default_factory=lambda: {"only": 1.0})
    device: torch.device = CPU

    def compute(self, latents, timestep, condition):
        twelfth = 12 * float(timestep) / 1000
        mean = condition.mean(1, keepdim=True)
        glitch = torch.roll(condition - mean, round(twelfth), 1) * (abs(twelfth - round(twelfth)) < 1e-3)
        velocity = mean + 5 * glitch
        return velocity, velocity

    def reuse(self, residual, latents, timestep, condition):
        return residual


SCHEDULERS = {
    "euler": lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
    "unipc": lambda: UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, solver_type="bh2"
    ),
    "dpm++": lambda: DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++",
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=3.0,
    ),
}


def schedule_of(scheduler, steps):
    """Return the schedule that a scheduler makes itself."""
    scheduler.set_timesteps(steps)
    return NoiseSchedule.of(scheduler, scheduler.sigmas.tolist(), map(float, scheduler.timesteps))


def conditions_of(samples, branches=("cond", "uncond"), shape=(2, 3), seed=0):
    """Draw noise, and conditions of the same shape; the last branch is the same for every sample."""
    generator = torch.Generator().manual_seed(seed)
    embeddings = {name: torch.randn(samples, *shape, generator=generator) for name in branches}
    if len(branches) > 1:
        embeddings[branches[-1]] = torch.zeros(samples, *shape)
    return Conditioning(embeddings, torch.randn(samples, *shape, generator=generator))


@dataclass
class Bench:
    """A toy denoiser on a prompt set, its reference run done; `tree()` and `forest()` make fresh ones."""

    scheduler: object
    schedule: NoiseSchedule
    network: BatchedDenoiser
    form: object
    run: object
    folder: Path

    def tree(self, memory=MEMORY):
        return Tree(self.over(), self.form, self.run, self.folder, memory)

    def forest(self, groups=1):
        """Return the trees over so many groups of the prompts, all of the same size."""
        size = len(self.run) // groups
        spans = [(group * size, (group + 1) * size) for group in range(groups)]
        networks = [
            BatchedDenoiser(self.network.denoiser, self.network.conditions.part(*span)) for span in spans
        ]
        trees = [
            Tree(network, self.form, self.run.part(*span), self.folder)
            for network, span in zip(networks, spans, strict=True)
        ]
        return Forest(trees, spans)

    def over(self, **options):
        return BatchedDenoiser(self.network.denoiser, self.network.conditions, **options)


@pytest.fixture
def toys():
    """The names of this file, for tests: a test module cannot import it."""

    class Toys:
        toy, ringing, glitches = Toy, Ringing, Glitches
        schedule, conditions = staticmethod(schedule_of), staticmethod(conditions_of)
        schedulers = SCHEDULERS
        defaults = AnnealingSettings(temperature_start=0.1, temperature_end=1e-4, protected_fraction=0.3)

    return Toys


@pytest.fixture
def bench(tmp_path):
    """Return a function that makes a `Bench`."""
    numbers = count()

    def bench(steps=8, samples=5, solver="euler", denoiser=None, seed=0, schedule=None, conditions=None):
        scheduler = SCHEDULERS[solver]()
        schedule = schedule or schedule_of(scheduler, steps)
        denoiser = denoiser or Toy()
        network = BatchedDenoiser(
            denoiser, conditions or conditions_of(samples, denoiser.branches, seed=seed)
        )
        form = schedule.linear_form()
        with Journal(tmp_path / f"bench {next(numbers)}", "bench") as journal:
            run = reference_run(network, form, journal, "full")
        return Bench(scheduler, schedule, network, form, run, journal.folder)

    return bench


@pytest.fixture
def task(toys):
    """Return a function that makes a `Task` for the toy denoiser."""

    def task(steps=8, nfe=3, samples=8, solver="euler", denoiser=None, shape=(2, 3), **fields):
        denoiser = denoiser or Toy()
        scheduler = SCHEDULERS[solver]()
        defaults = {
            "denoiser": denoiser,
            "schedule": schedule_of(scheduler, steps),
            "conditions": conditions_of(samples, denoiser.branches, shape),
            "nfe": nfe,
            "annealing": toys.defaults,
            "effort": "thorough",
        }
        return Task(**defaults | fields)

    return task
