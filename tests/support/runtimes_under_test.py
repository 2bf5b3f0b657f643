"""budc's runtimes as the conformance suite calls them: a diffusers pipeline of Wan, and its export."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from wan_runs import PROMPT, SEED, call_pipeline, counted_evaluations, first_noise

from budc.policies.profile import ModelProfile
from budc.runtimes.diffusers import apply as diffusers
from budc.runtimes.onnxruntime import pipeline as onnxruntime
from budc.runtimes.onnxruntime.forwards import LinearCombination
from budc.runtimes.testing import STEPS, OnStep, RunRecord, record_steps
from budc.schema.policy import PolicyDocument


class DiffusersUnderTest:
    """The pipeline of the folder. A policy stays applied as long as the document is the same."""

    def __init__(self, pipe: Any, folder: Path, document: PolicyDocument, profile: ModelProfile) -> None:
        self.pipe, self.folder, self.document, self.profile = pipe, folder, document, profile
        self._applied: tuple[PolicyDocument, diffusers.AppliedPolicy] | None = None

    def run(
        self,
        document: PolicyDocument,
        *,
        steps: int | None = None,
        on_step: OnStep | None = None,
        record: RunRecord | None = None,
    ) -> RunRecord:
        record = RunRecord() if record is None else record
        policy, velocities = self._apply(document), []

        def after(pipe: Any, step: int, _t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            cond, uncond = velocities[-2:]
            record.velocities.append({"cond": cond, "uncond": uncond})
            record.latents = on_host(tensors["latents"])
            if on_step is not None and on_step(step) is False:
                pipe._interrupt = True
            return tensors

        denoisers = [getattr(self.pipe, denoiser.name) for denoiser in document.model.denoisers]
        hooks = [
            denoiser.register_forward_hook(lambda _m, _i, output: velocities.append(on_host(output[0])))
            for denoiser in denoisers
        ]
        record.noise = first_noise(self.profile)
        try:
            with (
                counted_evaluations(denoisers, record),
                record_steps(policy._run.forwards.machine, on_host, record),
            ):
                self._call(steps or STEPS, after)
        finally:
            for hook in hooks:
                hook.remove()
        record.held = policy._run.forwards.machine.held
        return record

    def plain(self) -> Any:
        self._remove()
        return on_host(self._call(STEPS))

    @contextlib.contextmanager
    def adapter(self) -> Iterator[None]:
        peft = pytest.importorskip("peft")
        config = peft.LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
        self._remove()
        self.pipe.transformer.add_adapter(config, adapter_name="style")
        yield
        self.pipe.transformer.delete_adapters("style")

    def _apply(self, document: PolicyDocument) -> diffusers.AppliedPolicy:
        if self._applied is None or self._applied[0] is not document:
            self._remove()
            policy = diffusers.apply(self.pipe, document, allow_unsigned=True, weights_dir=self.folder)
            self._applied = (document, policy)
        return self._applied[1]

    def _remove(self) -> None:
        if self._applied is not None:
            self._applied[1].remove()
            self._applied = None

    def _call(self, steps: int, after: Any = None) -> Any:
        return call_pipeline(
            self.pipe,
            self.profile,
            self.document.sampler,
            steps=steps,
            negative=self.profile.prompts.negative,
            after=after,
        )


class OnnxUnderTest:
    """The export. The pipeline stays loaded as long as the document is the same."""

    def __init__(
        self, folder: Path, document: PolicyDocument, plain: Any, scratch: Path, provider: str = "cpu"
    ) -> None:
        self.folder, self.document = folder, document
        self._plain, self._scratch, self._provider = plain, scratch, provider
        self._loaded: tuple[PolicyDocument, onnxruntime.OnnxPipeline] | None = None

    def run(
        self,
        document: PolicyDocument,
        *,
        steps: int | None = None,
        on_step: OnStep | None = None,
        record: RunRecord | None = None,
    ) -> RunRecord:
        record = RunRecord() if record is None else record
        pipe = self._load(document)
        loop = pipe.denoising_loop(1)

        def after(step: int) -> object:
            record.velocities.append(loop.velocities)
            return None if on_step is None else on_step(step)

        def to_array(cached: LinearCombination) -> Any:
            return sum(c * tensor.read().astype(np.float64) for c, tensor in cached.terms)

        record.noise = pipe.noise(SEED)
        with record_steps(loop.machine, to_array, record):
            record.latents = pipe.generate(PROMPT, seed=SEED, steps=steps, on_step=after).latents
        record.evaluations_of = [
            loop.forwards.get(name, 0) for name in ("compute", "compute_2")[: len(pipe.manifest.denoisers)]
        ]
        record.evaluations = sum(record.evaluations_of)
        record.held = loop.machine.held
        return record

    def plain(self) -> Any:
        return self._plain()

    @contextlib.contextmanager
    def adapter(self) -> Iterator[None]:
        # An export takes no adapters, but one may be merged into the weights before the export.
        original, self.folder, self._loaded = self.folder, self._scratch / "merged", None
        shutil.copytree(original, self.folder)
        weights = self.folder / "transformer" / "weights.onnx.data"
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
        yield
        self.folder, self._loaded = original, None

    def _load(self, document: PolicyDocument) -> onnxruntime.OnnxPipeline:
        if self._loaded is None or self._loaded[0] is not document:
            provider = onnxruntime.choose_provider(self._provider, threads=1)
            pipe = onnxruntime.load(document, self.folder, provider=provider, allow_unsigned=True)
            self._loaded = (document, pipe)
        return self._loaded[1]


def on_host(tensor: Any) -> Any:
    return tensor.detach().cpu().numpy()
