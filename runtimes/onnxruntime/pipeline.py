"""ONNX Runtime: run a policy on an exported model, without torch, diffusers or transformers.

    pipe = load("policy.budc.json", "wan2.1-nano-onnx", trust="release.pub", provider="cpu")
    generation = pipe.generate("a small red circle moves to the left over stripes", seed=0)
    generation.frames, generation.latents

The folder is one that `budc export onnx` wrote and `budc bind` added to the policy. Noise, prompt, schedule and
guidance are those of the diffusers pipeline, so the same seed gives the same latents up to rounding.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path

from budc.runtimes.admission.settings import SettingsCheck, UncalibratedWarning
from budc.runtimes.admission.trust import Source, UnsignedWarning, trusted_policy
from budc.runtimes.exported.manifest import Manifest
from budc.runtimes.exported.recheck import VerifiedFiles, folder_state
from budc.schema.arguments import described, path_argument, seed_argument, whole_number
from budc.schema.digest_cache import DigestCache
from budc.schema.errors import CalibrationMismatch, MissingExtra, UsageError
from budc.schema.installation import install
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

try:
    import numpy as np
    import onnxruntime as ort
    from numpy.typing import NDArray

    from budc.runtimes.onnxruntime.branches import guided_branches
    from budc.runtimes.onnxruntime.checks import check_document, check_scheduler, verify_folder
    from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop, OnStep
    from budc.runtimes.onnxruntime.noise import pack_latents, seeded_noise
    from budc.runtimes.onnxruntime.prompt_encoder import PromptEncoder
    from budc.runtimes.onnxruntime.provider import Provider, choose_provider
    from budc.runtimes.onnxruntime.sessions import DenoiserSessions
except ModuleNotFoundError as missing:
    raise MissingExtra(
        f"running with ONNX Runtime needs {missing.name}, which is not installed (extra budc[onnx])",
        remedy=install("onnx"),
    ) from missing

__all__ = [
    "Generation",
    "OnnxPipeline",
    "Provider",
    "UncalibratedWarning",
    "UnsignedWarning",
    "choose_provider",
    "load",
]

Floats = NDArray[np.float32]

_MOST = 1 << 20
"""Samples of a batch, and more."""


@dataclass(frozen=True)
class Generation:
    """What one run generated."""

    frames: Floats
    """(F, H, W, 3) in 0..1."""
    latents: Floats
    """The final latents, (1, ...)."""
    seconds: float
    """Time of the denoising loop, without text encoding and decoding."""


def load(
    artifact: Source,
    folder: str | PathLike[str],
    *,
    trust: Trust | str | PathLike[str] | None = None,
    provider: str | Provider = "cpu",
    allow_unsigned: bool = False,
    allow_uncalibrated: bool = False,
    digests: DigestCache | None = None,
) -> "OnnxPipeline":
    """Open an exported model under a policy.

    Args:
        artifact: a `.budc.json` file, or what was read from one; a bare `PolicyDocument` counts as unsigned.
        folder: the export. Every file of it is verified against the policy before a graph is opened.
        trust: whose signature is believed: a `Trust`, or the path of one public key.
        provider: "cpu" or "cuda", never replaced by another; `choose_provider("cpu", threads=4)` sets the number
            of CPU threads too.
        allow_unsigned: run an unsigned artifact, with a warning.
        allow_uncalibrated: run weights or settings other than calibrated, with a warning.
        digests: the cache of file digests by size and time; default the user's.

    Raises:
        UsageError: an argument of another kind.
        TrustError: no trusted key has signed the artifact.
        ModelError: the folder is not an export that the policy lists, or is not safe to open.
        CalibrationMismatch: the export is for another shape, text length, scheduler or pipeline.
        ProviderMissing: the provider cannot be used on this machine.
    """
    document = trusted_policy(artifact, trust, allow_unsigned).document
    export = path_argument(folder, "folder", "pass the folder that `budc export onnx` wrote")
    chosen = provider if isinstance(provider, Provider) else choose_provider(provider)
    settings = SettingsCheck(allow_uncalibrated)
    state = folder_state(export)
    manifest = verify_folder(export, document, settings, digests=digests)
    check_document(document, manifest, settings)
    check_scheduler(document, export, manifest, settings)
    # Graphs are opened when they are first needed: what has changed by then is verified again.
    files = VerifiedFiles(export, manifest.files, state)
    opener = replace(chosen, before_open=files.confirm)
    return OnnxPipeline(export, manifest, document, opener, settings)


class OnnxPipeline:
    """An exported model under one policy, made by `load`. Its graphs are opened when they are first needed.

    Threads may share a pipeline: their runs take turns.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        document: PolicyDocument,
        provider: Provider,
        settings: SettingsCheck,
    ) -> None:
        self.document = document
        self.manifest = manifest
        self.provider = provider
        self._folder, self._settings = folder, settings
        branches = list(guided_branches(document, manifest.branches))
        self._prompt_encoder = PromptEncoder(folder, manifest, branches, provider)
        self._denoiser_sessions = DenoiserSessions(folder, manifest, provider)
        self._loops: dict[int, DenoisingLoop] = {}
        self._making_loops = threading.Lock()

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """What differs from the calibration, a sentence a field; empty if nothing does."""
        return tuple(self._settings.differences.values())

    def generate(
        self, prompt: str, *, seed: int = 0, steps: int | None = None, on_step: OnStep | None = None
    ) -> Generation:
        """Generate one clip, from the noise that diffusers draws from a CPU generator of `seed`.

        Args:
            prompt: what to generate.
            seed: of the noise.
            steps: the policy's number of steps, which is the default; any other is refused.
            on_step: called after each step with its index; returning False ends the run there.

        Raises:
            UsageError: an argument of another kind: `prompt` is one text, `seed` at least 0.
            CalibrationMismatch: `steps` is not the policy's number.
            RefusedRun: a run of this pipeline is under way in the same thread. One in another thread is waited for.
        """
        _check_prompt(prompt, "prompt", "pass one text; call generate once for each prompt")
        seed = seed_argument(seed)
        if on_step is not None and not callable(on_step):
            raise UsageError(
                f"on_step: {described(on_step)} is no function", remedy="pass a function of a step's index"
            )
        policy_steps = self.document.sampler.steps
        if steps is not None and steps != policy_steps:
            raise CalibrationMismatch(
                f"steps: the policy has {policy_steps}, this run asks for {steps}",
                remedy=f"ask for {policy_steps} steps, or load a policy of {steps}",
            )
        embeddings, noise = self.encode([prompt]), self.noise(seed)
        latents, seconds = self.denoising_loop(1).timed_run(embeddings, noise, on_step)
        return Generation(self.decode(latents)[0], latents, seconds)

    def noise(self, seed: int) -> Floats:
        """Return the noise that one sample starts from, (1, ...). Raises UsageError: `seed` is no seed."""
        noise = seeded_noise((1, *self.manifest.latents), seed_argument(seed))
        return pack_latents(noise) if self.manifest.packed else noise

    def encode(self, prompts: Sequence[str]) -> Mapping[str, Floats]:
        """Return the denoiser's embeddings of N prompts by name, (branches · N, ...), the conditional branch first.

        Raises:
            UsageError: not a sequence of texts, or none.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Sequence) or not prompts:
            what = "an empty sequence" if prompts == [] else described(prompts)
            raise UsageError(
                f"prompts: {what} is not a list of texts", remedy="pass one or more prompts as a list"
            )
        for index, prompt in enumerate(prompts):
            _check_prompt(prompt, f"prompts[{index}]", "pass one or more prompts as a list")
        return self._prompt_encoder(prompts)

    def denoising_loop(self, batch: int) -> DenoisingLoop:
        """Return the denoising loop for `batch` samples at once. Raises UsageError: `batch` is less than 1."""
        batch = whole_number(
            batch, "batch", least=1, most=_MOST, remedy="pass a number of samples such as batch=1"
        )
        with self._making_loops:
            if batch not in self._loops:
                self._loops[batch] = DenoisingLoop(self._denoiser_sessions, self.document, batch)
            return self._loops[batch]

    def decode(self, latents: Floats) -> Floats:
        """Return the frames of final latents, (N, F, H, W, 3) in 0..1."""
        video = self._decoder.run(None, {"latents": latents})[0]
        return np.ascontiguousarray(np.moveaxis(video, 2, -1), np.float32)

    @cached_property
    def _decoder(self) -> ort.InferenceSession:
        return self.provider.open(self._folder / self.manifest.graphs["vae_decoder"].file)


def _check_prompt(prompt: object, name: str, remedy: str) -> None:
    if not isinstance(prompt, str):
        raise UsageError(f"{name}: {described(prompt)} is no text", remedy=remedy)
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{name}: holds half of a surrogate pair, which is no character", remedy=remedy
        ) from error
