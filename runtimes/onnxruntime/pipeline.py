"""ONNX Runtime: run a policy on an exported model; no torch, no diffusers, no transformers.

    pipe = load("policy.budc.json", "wan2.1-nano-onnx", trust="release.pub", provider="cpu")
    made = pipe.generate("a small red circle moves to the left over stripes", seed=0)
    made.frames, made.latents

The folder is what `budc export onnx` wrote, and `budc bind` has put into the policy. Noise, prompt, schedule
and guidance are those of the diffusers pipeline, so the same seed gives the same latents up to rounding.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning
from budc.runtimes.admission.trust import Source, UnsignedWarning, trusted_document
from budc.runtimes.exported.manifest import GraphName, Manifest
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import CalibrationMismatch, MissingExtra
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

try:
    import numpy as np
    from numpy.typing import NDArray

    from budc.runtimes.onnxruntime.branches import guided_branches
    from budc.runtimes.onnxruntime.checks import check_document, check_scheduler, verify_folder
    from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop, OnStep
    from budc.runtimes.onnxruntime.noise import packed, seeded_noise
    from budc.runtimes.onnxruntime.provider import Provider, choose_provider
    from budc.runtimes.onnxruntime.sessions import Sessions
    from budc.runtimes.onnxruntime.tokenizer import PromptReader
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"running with ONNX Runtime needs {missing.name}, which is not installed (extra budc[onnx])",
        remedy="pip install 'budc[onnx]'",
    ) from missing

__all__ = ["Generation", "OnnxPipeline", "UncalibratedWarning", "UnsignedWarning", "load"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Generation:
    """What one run made."""

    frames: Floats
    """(F, H, W, 3) in 0..1."""
    latents: Floats
    """The final latents, (1, ...)."""
    seconds: float
    """Of the denoising loop: no text encoding, no decoding."""


def load(
    artifact: Source,
    folder: str | PathLike[str],
    *,
    trust: Trust | str | PathLike[str] | None = None,
    provider: str = "cpu",
    threads: int = 0,
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    digests: DigestCache | None = None,
) -> "OnnxPipeline":
    """Open an exported model under a policy.

    Args:
        artifact: a `.budc.json` file, or what was read from one; a bare `PolicyDocument` counts as unsigned.
        folder: the export, of which every file is verified against the policy before a graph is opened.
        trust: whose signature is believed: a `Trust`, or the path of one public key.
        provider: "cpu" or "cuda"; never replaced by another.
        threads: of the CPU, 0 for ONNX Runtime's own choice.
        allow_unsigned: run what nobody signed, with a warning.
        allow_uncalibrated: run other weights or settings than calibrated, with a warning.
        digests: remembers the export's files by their times; the user's cache by default.

    Raises:
        TrustError: nobody trusted has signed the artifact.
        ModelError: the folder is not an export that the policy lists, or is not safe to open.
        CalibrationMismatch: the export is for another shape, text length, scheduler or pipeline.
        ProviderMissing: the provider cannot be used on this machine.
    """
    document = trusted_document(artifact, trust, allow_unsigned)
    chosen = choose_provider(provider, threads)
    calibration = SettingsCheck(allow_uncalibrated)
    manifest = verify_folder(Path(folder), document, calibration, digests=digests)
    check_document(document, manifest, calibration)
    check_scheduler(document, Path(folder), manifest, calibration)
    return OnnxPipeline(Path(folder), manifest, document, chosen, calibration)


class OnnxPipeline:
    """An exported model under one policy. Graphs are opened when first needed; `load` makes it."""

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        document: PolicyDocument,
        provider: Provider,
        calibration: SettingsCheck,
    ) -> None:
        self.document = document
        self.manifest = manifest
        self.provider = provider
        self._calibration = calibration
        self._read = PromptReader(folder, manifest.text)
        pooled_text = manifest.pooled_text
        self._read_pooled = None if pooled_text is None else PromptReader(folder, pooled_text)
        self._folder = folder
        self._denoising = Sessions(folder, manifest, provider)
        self._others: dict[GraphName, Any] = {}
        self._denoisers: dict[int, DenoisingLoop] = {}

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """What differs from the calibration; empty means calibrated."""
        return tuple(self._calibration.differences.values())

    def generate(
        self, prompt: str, *, seed: int = 0, steps: int | None = None, on_step: OnStep | None = None
    ) -> Generation:
        """Generate one clip, from the noise that diffusers draws from a CPU generator of `seed`.

        Args:
            prompt: what to generate.
            seed: of the noise.
            steps: refused unless it is the policy's number, which is the default.
            on_step: called after each step with its index; returning False ends the run there.

        Raises:
            CalibrationMismatch: another number of steps than the policy's.
        """
        own = self.document.sampler.steps
        if steps is not None and steps != own:
            raise CalibrationMismatch(
                f"steps: the policy has {own}, this run asks for {steps}",
                remedy=f"ask for {own} steps, or load a policy of {steps}",
            )
        embeddings, noise = self.encode([prompt]), self.noise(seed)
        denoiser = self.denoiser(1)
        started = time.perf_counter()
        latents = denoiser.run(embeddings, noise, on_step)
        seconds = time.perf_counter() - started
        return Generation(self.decode(latents)[0], latents, seconds)

    def noise(self, seed: int) -> Floats:
        """Return what one sample starts from, (1, ...)."""
        drawn = seeded_noise((1, *self.manifest.latents), seed)
        return packed(drawn) if self.manifest.packed else drawn

    def encode(self, prompts: Sequence[str]) -> Mapping[str, Floats]:
        """Return what the denoiser is given, by name: (branches · N, ...), the conditional branch first."""
        branches = guided_branches(self.document, self.manifest.branches)
        texts = [self.manifest.negative_prompt if name == "uncond" else None for name in branches]
        said = [text if text is not None else prompt for text in texts for prompt in prompts]
        ids, mask = self._read(said)
        given = {"input_ids": ids, "attention_mask": mask}
        if self._read_pooled is not None:
            given["pooled_input_ids"], _ = self._read_pooled(said)
        graph = self.manifest.graphs["text_encoder"]
        taken = {spec.name: given[spec.name] for spec in graph.inputs}
        made = self._session("text_encoder").run(None, taken)
        return dict(zip([spec.name for spec in graph.outputs], made, strict=True))

    def denoiser(self, batch: int) -> DenoisingLoop:
        """Return the denoising loop for `batch` samples at once."""
        if batch not in self._denoisers:
            self._denoisers[batch] = DenoisingLoop(self._denoising, self.document, batch)
        return self._denoisers[batch]

    def decode(self, latents: Floats) -> Floats:
        """Return the frames of final latents, (N, F, H, W, 3) in 0..1."""
        video = self._session("vae_decoder").run(None, {"latents": latents})[0]
        return np.ascontiguousarray(np.moveaxis(video, 2, -1), np.float32)

    def _session(self, name: GraphName) -> Any:
        if name not in self._others:
            self._others[name] = self.provider.open(self._folder / self.manifest.graphs[name].file)
        return self._others[name]
