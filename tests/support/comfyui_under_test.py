"""ComfyUI's engine as a runtime of the conformance suite, and diffusers' runtime beside it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import torch
from comfyui_models import engine_model, sample
from wan_runs import PROMPT, call_pipeline, counted_evaluations, first_noise

from budc.runtimes.comfyui.apply import apply
from budc.runtimes.comfyui.policy_runs import KEY
from budc.runtimes.comfyui.sampler import policy_sampler
from budc.runtimes.comfyui.sampling_run import BRANCHES
from budc.runtimes.diffusers.apply import applied
from budc.runtimes.testing import OnStep, RunRecord, record_steps
from budc.schema.policy import PolicyDocument


class EngineUnderTest:
    """The engine's Wan, or two of them. A policy stays on the MODEL as long as the document is the same."""

    def __init__(self, pipe: Any, folder: Path, document: PolicyDocument) -> None:
        self.pipe, self.folder, self.document = pipe, folder, document
        self.patcher, *self.later = (
            engine_model(getattr(pipe, item.name)) for item in document.model.denoisers
        )
        self.shape = document.pipeline().shape
        positive, negative = pipe.encode_prompt(PROMPT, "", max_sequence_length=self.shape.text_tokens)
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
            self._applied = (document, apply(self.patcher, document, self.later))
        patcher = self._applied[1]
        networks = [one.model.diffusion_model for one in (patcher, *self.later)]
        runs = patcher.get_attachment(KEY)
        velocities: dict[str, Any] = {}

        def left(_module: Any, _args: Any, kwargs: Any, output: Any) -> None:
            names = [BRANCHES[place] for place in kwargs["transformer_options"]["cond_or_uncond"]]
            velocities.update(zip(names, output.chunk(len(names)), strict=True))

        def after(step: int, _denoised: Any, _latents: Any, _total: int) -> None:
            record.velocities.append({name: value.numpy() for name, value in velocities.items()})
            if on_step is not None and on_step(step) is False:
                raise management.InterruptProcessingException

        hooks = [network.register_forward_hook(left, with_kwargs=True) for network in networks]
        record.noise = first_noise(self.shape)
        sigmas = document.sampler.sigmas if steps is None else torch.linspace(1, 0, steps + 1)
        try:
            with (
                counted_evaluations(networks, record),
                record_steps(runs.machine, lambda cached: cached.numpy(), record),
                contextlib.suppress(management.InterruptProcessingException),
            ):
                latents = sample(
                    patcher, torch.tensor(record.noise), *self.texts, document.sampler.guidance, self.sampler(document),
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
        return call_pipeline(self.pipe, self.shape, self.document.sampler).numpy()

    def diffusers(self, document: PolicyDocument) -> Any:
        """The latents of diffusers' runtime."""
        with applied(self.pipe, document, allow_unsigned=True, weights_dir=self.folder):
            return self.plain()

    @contextlib.contextmanager
    def adapter(self) -> Iterator[None]:
        original, self.patcher = self.patcher, self.patcher.clone()
        weight = "diffusion_model.blocks.0.self_attn.q.weight"
        width = self.patcher.model.diffusion_model.dim
        self.patcher.add_patches({weight: ("diff", (torch.ones(width, width),))})
        self._applied = (None, None)
        yield
        self.patcher, self._applied = original, (None, None)
