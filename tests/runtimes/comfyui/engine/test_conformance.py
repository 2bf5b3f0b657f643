"""The conformance suite on ComfyUI's engine, and its final latents beside those of diffusers' runtime."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from comfyui_models import engine_model, sample
from tiny_folders import EXPORT_SHAPE

from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.policy_runs import KEY
from budc.runtimes.comfyui.sampler import policy_sampler
from budc.runtimes.comfyui.sampling_run import BRANCHES
from budc.runtimes.diffusers.apply import applied
from budc.runtimes.onnxruntime.noise import seeded_noise
from budc.runtimes.testing import GOLDEN, STEPS, OnStep, RunRecord, RuntimeConformance, record_steps
from budc.schema.policy import PolicyDocument

PROMPT, SEED, GUIDANCE = "a small red circle moves left over stripes", 7, 5.0
LATENTS = (1, 16, 2, 8, 8)

pytestmark = pytest.mark.filterwarnings("ignore::budc.runtimes.admission.trust.UnsignedWarning")


class EngineUnderTest:
    """The engine's Wan. A policy stays on the MODEL as long as the document is the same."""

    def __init__(self, pipe: Any, folder: Path, document: PolicyDocument) -> None:
        self.pipe, self.folder, self.document = pipe, folder, document
        self.patcher = engine_model(pipe.transformer)
        positive, negative = pipe.encode_prompt(PROMPT, "", max_sequence_length=EXPORT_SHAPE.text_tokens)
        self.texts = [[[text, {}]] for text in (positive, negative)]
        self._applied: tuple[Any, Any] = (None, None)

    def run(
        self,
        document: PolicyDocument,
        *,
        steps: int | None = None,
        on_step: OnStep | None = None,
        record: RunRecord | None = None,
    ) -> RunRecord:
        import comfy.model_management as management

        record = RunRecord() if record is None else record
        if self._applied[0] is not document:
            self._applied = (document, apply(self.patcher, document))
        patcher = self._applied[1]
        network, runs = patcher.model.diffusion_model, patcher.get_attachment(KEY)
        velocities: dict[str, Any] = {}

        def entered(_module: Any, args: Any, _kwargs: Any) -> None:
            record.evaluations += len(args[0])

        def left(_module: Any, _args: Any, kwargs: Any, output: Any) -> None:
            names = [BRANCHES[place] for place in kwargs["transformer_options"]["cond_or_uncond"]]
            velocities.update(zip(names, output.chunk(len(names)), strict=True))

        def after(step: int, _denoised: Any, _latents: Any, _total: int) -> None:
            record.velocities.append({name: value.numpy() for name, value in velocities.items()})
            if on_step is not None and on_step(step) is False:
                raise management.InterruptProcessingException

        hooks = [
            network.blocks[0].register_forward_pre_hook(entered, with_kwargs=True),
            network.register_forward_hook(left, with_kwargs=True),
        ]
        record.noise = seeded_noise(LATENTS, SEED)
        sigmas = document.sampler.sigmas if steps is None else torch.linspace(1, 0, steps + 1)
        try:
            with (
                record_steps(runs.machine, lambda cached: cached.numpy(), record),
                contextlib.suppress(management.InterruptProcessingException),
            ):
                latents = sample(
                    patcher, torch.tensor(record.noise), *self.texts, GUIDANCE, self.sampler(document),
                    torch.as_tensor(sigmas), after,
                )  # fmt: skip
                record.latents = latents.numpy()
        finally:
            for hook in hooks:
                hook.remove()
        record.held = runs.machine.held
        return record

    def sampler(self, document: PolicyDocument) -> Any:
        """The engine's own Euler, or the solver of the policy, for the scheduler of the model."""
        import comfy.samplers

        own = self.document.sampler
        if own.scheduler == "FlowMatchEulerDiscreteScheduler":
            return comfy.samplers.sampler_object("euler")
        schedule = {name: getattr(document.sampler, name) for name in ("sigmas", "timesteps")}
        return comfy.samplers.KSAMPLER(policy_sampler(msgspec.structs.replace(own, **schedule)))

    def plain(self) -> Any:
        return self.call()

    def diffusers(self, document: PolicyDocument) -> Any:
        """The latents of diffusers' runtime."""
        with applied(self.pipe, document, allow_unsigned=True, weights_dir=self.folder):
            return self.call()

    def call(self) -> Any:
        shape = EXPORT_SHAPE
        return self.pipe(
            PROMPT, height=shape.height, width=shape.width, num_frames=shape.frames,
            max_sequence_length=shape.text_tokens, guidance_scale=GUIDANCE, num_inference_steps=STEPS,
            generator=torch.Generator().manual_seed(SEED), output_type="latent",
        ).frames.numpy()  # fmt: skip

    @contextlib.contextmanager
    def adapter(self) -> Iterator[None]:
        original, self.patcher = self.patcher, self.patcher.clone()
        weight = "diffusion_model.blocks.0.self_attn.q.weight"
        self.patcher.add_patches({weight: ("diff", (torch.ones(96, 96),))})
        self._applied = (None, None)
        yield
        self.patcher, self._applied = original, (None, None)


# The solver of the policy with one payload, the engine's own Euler with the other: each is independent of the other.
@pytest.fixture(scope="module", params=["UniPC velocity", "Euler trunk-residual"])
def variant(request: pytest.FixtureRequest) -> list[str]:
    return request.param.split()


@pytest.fixture(scope="module")
def pipe(wan_folder: Path, variant: list[str]) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline

    pipe = WanPipeline.from_pretrained(wan_folder)
    if variant[0] == "Euler":
        pipe.scheduler = FlowMatchEulerDiscreteScheduler(shift=pipe.scheduler.config.flow_shift)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def base(untrained: PolicyDocument, pipe: Any, variant: list[str]) -> PolicyDocument:
    from budc.runtimes.sampling.families import family_of
    from budc.runtimes.sampling.schedulers import sampler_binding

    document = GOLDEN["plain reuse"].document(untrained)
    sampler = sampler_binding(
        pipe.scheduler, STEPS, GUIDANCE, family=family_of(pipe.transformer), guidance_rule="classifier-free"
    )
    policy = msgspec.structs.replace(document.policy, payload=variant[1])
    return msgspec.structs.replace(document, policy=policy, sampler=sampler)


@pytest.fixture(scope="module")
def under_test(pipe: Any, wan_folder: Path, base: PolicyDocument) -> EngineUnderTest:
    return EngineUnderTest(pipe, wan_folder, base)


class TestComfyUI(RuntimeConformance):
    @pytest.fixture
    def runtime(self, under_test: EngineUnderTest) -> EngineUnderTest:
        return under_test


@pytest.mark.parametrize("name", list(GOLDEN))
def test_final_latents_are_those_of_diffusers(under_test: EngineUnderTest, name: str) -> None:
    document = GOLDEN[name].document(under_test.document)
    actual, expected = under_test.run(document).latents, under_test.diffusers(document)
    assert np.abs(actual - expected).max() < 1e-5 * np.abs(expected).max()
