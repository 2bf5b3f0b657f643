"""An exported model under one policy, or under policies of several budgets that share its sessions."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from budc.runtimes.admission.held_policies import check_replacement, held_policies, of_evaluations
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.admission.trust import Source, TrustedPolicy
from budc.runtimes.exported.manifest import Manifest
from budc.runtimes.onnxruntime.branches import guided_branches
from budc.runtimes.onnxruntime.checks import check_document, check_scheduler
from budc.runtimes.onnxruntime.denoising_loop import DenoisingLoop, OnStep
from budc.runtimes.onnxruntime.noise import pack_latents, seeded_noise
from budc.runtimes.onnxruntime.plain_run import plain_document
from budc.runtimes.onnxruntime.prompt_encoder import PromptEncoder
from budc.runtimes.onnxruntime.provider import Provider
from budc.runtimes.onnxruntime.sessions import DenoiserSessions
from budc.schema.arguments import described, seed_argument, whole_number
from budc.schema.errors import CalibrationMismatch, RefusedRun, UsageError
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust

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


class OnnxPipeline:
    """An exported model under a policy, made by `load`. Its graphs are opened when they are first needed.

    `document` is the policy in effect; of several policies it is the first, until `use` chooses another. They share
    the sessions of all graphs. Threads may share a pipeline: their runs take turns.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        held: Mapping[int, TrustedPolicy],
        provider: Provider,
        settings: SettingsCheck,
    ) -> None:
        self.document = next(iter(held.values())).document
        self.manifest = manifest
        self.provider = provider
        self._folder, self._held, self._settings = folder, held, settings
        self._prompt_encoder = PromptEncoder(folder, manifest, provider)
        self._denoiser_sessions = DenoiserSessions(folder, manifest, provider)
        self._loops: dict[tuple[int, int], DenoisingLoop] = {}
        """By evaluations and batch."""
        self._making_loops = threading.Lock()

    @property
    def policies(self) -> tuple[PolicyDocument, ...]:
        """All policies that are held, for one model."""
        return tuple(policy.document for policy in self._held.values())

    def use(self, *, nfe: int) -> None:
        """Choose the policy of so many evaluations for the runs that follow. Takes microseconds: nothing is opened.

        Raises:
            UsageError: none of the policies has so many.
            RefusedRun: a run is under way.
        """
        self._go_over(of_evaluations(self._held, nfe))

    def replace(
        self,
        artifact: Source | Sequence[Source],
        *,
        trust: Trust | str | PathLike[str] | None = None,
        allow_unsigned: bool = False,
    ) -> None:
        """Hold other policies for the same model in place of these; the first is in effect for the runs that follow.

        All are verified before anything changes. The export stays as it is: it is verified for this model. The
        arguments are those of `load`.

        Raises:
            UsageError: a policy is for another model, or two have the same number of evaluations.
            TrustError, ArtifactError, CalibrationMismatch: as for `load`.
            RefusedRun: a run is under way.
        """
        held = held_policies(artifact, trust, allow_unsigned)
        first, *_ = held.values()
        check_replacement(first.document, self.document)
        settings = SettingsCheck(self._settings.allow)
        for policy in held.values():
            check_document(policy.document, self.manifest, settings)
            check_scheduler(policy.document, self._folder, self.manifest, settings)
        with self._making_loops:
            self._go_over(first)
            self._loops = {
                key: loop
                for key, loop in self._loops.items()
                if key[0] in held and loop.document == held[key[0]].document
            }
            self._held = held
            self._settings.differences |= settings.differences

    def _go_over(self, policy: TrustedPolicy) -> None:
        if self._denoiser_sessions.exclusive.running:
            raise RefusedRun(
                f"a run under the policy {self.document.name} is under way",
                remedy="choose another policy when it has ended, not in its on_step",
            )
        self.document = policy.document

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
        branches = guided_branches(self.document, self.manifest.branches)
        return self._prompt_encoder(prompts, list(branches))

    def denoising_loop(self, batch: int) -> DenoisingLoop:
        """Return the loop of the policy in effect for `batch` samples at once.

        Raises:
            UsageError: `batch` is less than 1.
        """
        batch = whole_number(
            batch, "batch", least=1, most=_MOST, remedy="pass a number of samples such as batch=1"
        )
        with self._making_loops:
            document = self.document
            key = (document.budget.nfe, batch)
            if key not in self._loops:
                self._loops[key] = DenoisingLoop(self._denoiser_sessions, document, batch)
            return self._loops[key]

    def plain_loop(self, steps: int, boundaries: Sequence[float] = ()) -> DenoisingLoop:
        """Return a loop that computes every one of `steps` steps of the model's own schedule: a run without a policy.

        It takes one sample, and is made anew at every call. `boundaries` are the noise levels, of 1, below which each
        denoiser after the first takes over.

        Raises:
            UnsupportedModel: the policy's scheduler has no schedule without diffusers; the message names it.
        """
        return DenoisingLoop(
            self._denoiser_sessions, plain_document(self.document, self.manifest, steps, boundaries)
        )

    def decode(self, latents: Floats) -> Floats:
        """Return the frames of final latents, (N, F, H, W, 3) in 0..1."""
        decoder = self._decoder
        with self.provider.run_turn():
            video = decoder.run(None, {"latents": latents})[0]
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
