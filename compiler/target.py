"""The model that a policy is made for, and what every request for one has in common.

A request is resolved before a framework is imported: whatever can be refused without loading the model is refused
here, the cheapest first. What comes out is passed on and not checked again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from budc.compiler.cluster import Cluster, parse_cluster
from budc.compiler.models.fit import check_fit
from budc.compiler.models.supported import check_supported
from budc.compiler.search.space import DEFAULT_BATCH
from budc.option_names import option
from budc.policies.adapter_files import AdapterFile, adapter_files
from budc.policies.deployment import Deployment
from budc.policies.profile import ModelProfile, find_weights
from budc.policies.prompt_sets import PromptSource, SampleSets, read_samples
from budc.policies.samples import common_negative
from budc.schema.errors import UsageError
from budc.schema.fields import Name
from budc.schema.keys import load_public
from budc.schema.policy import NegativePrompt, SamplerBinding
from budc.schema.printable import printable
from budc.schema.signers import Signer, load_signer

_RANGES = {
    "seed": (0, 2**53 - 1),
    "steps": (1, 1000),
    "revision": (1, 2**31 - 1),
    "batch": (1, 1024),
    "calibration_size": (1, 1 << 20),
    "held_out_size": (1, 1 << 20),
}


class ArtifactRequest(Deployment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a user says of the artifact to be written and of the model that it is for."""

    weights: Path | None = None
    calibration: Path | None = None
    """Prompts to search or fit on; default the profile's."""
    calibration_size: int | None = None
    """How many of them; default all of a file, or as many as the profile says of its own."""
    held_out: Path | None = None
    """Prompts to report on; default the profile's."""
    held_out_size: int | None = None
    seed: int = 0
    key: str | None = None
    """Path of a private key, "env:NAME", or a key URI; see `budc.schema.signers.load_signer`."""
    public: Path | None = None
    """The public half of `key`, where that is a URI."""
    out: Path | None = None
    name: str | None = None
    revision: int = 1
    download: bool = False
    device: str | None = None
    """Where to compute, by torch's name, such as cuda:1; default the accelerator, or the CPU."""
    offload: Literal["model", "group"] = "model"
    """What is on the device at a time: a whole network ("model"), or of a denoiser one block ("group")."""
    states: Literal["float32", "bfloat16"] = "float32"
    """In which dtype the states of the reference run are kept; the final latents are always in float32."""
    no_frames: bool = False
    """Decode nothing: the report has no PSNR."""
    rehash: bool = False
    """Read every file of the model again, whatever an earlier process remembered of it."""
    lora: tuple[str, ...] = ()
    """Adapters to load into the model, as `adapter_files` reads them."""

    ray: str | None = None
    """The Ray cluster whose workers compute, as `parse_cluster` reads it; default this process alone."""
    workers: int | None = None
    """How many workers; default as many as the cluster has room for."""
    gpus_per_worker: float | None = None
    batch: int | None = None
    """How many candidates the search proposes at a time, and pieces that a prompt set is cut into at least; default
    one, with a cluster eight."""

    def cluster(self) -> Cluster | None:
        """Return the cluster whose workers compute; None for this process alone. Raises UsageError."""
        return parse_cluster(self.ray, self.workers, self.gpus_per_worker)

    def at_a_time(self) -> int:
        """Return how many candidates are proposed at a time. It is part of the request: workers do not change it."""
        return self.batch or (1 if self.ray is None else DEFAULT_BATCH)

    def check_numbers(self) -> None:
        """Refuse a number that is out of range. Raises UsageError."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name, None)
            if isinstance(value, int) and not low <= value <= high:
                raise UsageError(f"{option(name.replace('_', '-'))}: is {value}, expected {low} to {high}")

    def check_name(self) -> None:
        """Refuse a name that an artifact cannot have. Raises UsageError."""
        if self.name is None:
            return
        try:
            msgspec.convert(self.name, Name)
        except msgspec.ValidationError as error:
            raise UsageError(
                f"{option('name')}: {self.name!r} cannot name a policy",
                remedy="use letters, digits, dot, dash, underscore",
            ) from error

    def signer(self) -> Signer | None:
        """Return the signer, None where nothing is to be signed. Raises KeyUnusable."""
        public = load_public(self.public) if self.public else None
        return load_signer(self.key, public=public) if self.key else None

    def samples(self, profile: ModelProfile, report: int | None = None) -> SampleSets:
        """Read the samples of both prompt sets; at most `report` are held out, unless the user says how many.

        Raises:
            UsageError: see `read_samples`.
        """
        sets = read_samples(
            profile,
            PromptSource(self.calibration, self.calibration_size),
            PromptSource(self.held_out, self.held_out_size),
        )
        return sets if self.held_out_size else sets._replace(held_out=sets.held_out[:report])

    def adapters(self, profile: ModelProfile) -> tuple[AdapterFile, ...]:
        """Return the adapters to load into the model.

        Raises:
            BudcError: see `adapter_files`.
        """
        return adapter_files(self.lora, list(profile.denoisers))

    def target(
        self, profile: ModelProfile, samples: SampleSets, adapters: tuple[AdapterFile, ...] = ()
    ) -> Target:
        """Return the model, its weights found, or fetched where `download` says so.

        Raises:
            UnsupportedModel: the compiler does not know its pipeline.
            UsageError: it does not make this size of output.
            WeightsMissing: they are not here.
            BudcError: see `check_fit`.
        """
        check_supported(profile)
        folder = find_weights(profile, self.weights, download=self.download)
        check_fit(profile, folder)
        own = {"calibrationFile": self.calibration, "heldOutFile": self.held_out}
        files = {name: printable(path.name)[:256] for name, path in own.items() if path is not None}
        return Target(
            profile,
            samples,
            folder,
            rehash=self.rehash,
            device=self.device,
            offload=self.offload,
            frames=not self.no_frames,
            states=self.states,
            adapters=adapters,
            prompt_files=files,
        )


@dataclass(frozen=True)
class Target:
    """A model that a policy is made for: its profile, the samples, the folder of its weights."""

    profile: ModelProfile
    samples: SampleSets
    folder: Path
    rehash: bool = False
    device: str | None = None
    offload: Literal["model", "group"] = "model"
    states: Literal["float32", "bfloat16"] = "float32"
    frames: bool = True
    """Whether the report decodes what is rolled out."""
    adapters: tuple[AdapterFile, ...] = ()
    """Loaded into the denoisers before anything is measured."""
    prompt_files: Mapping[str, str] = field(default_factory=dict)
    """Names of the user's own prompt files, for the settings of the search that the artifact lists."""

    def bound(self, sampler: SamplerBinding) -> SamplerBinding:
        """Return a sampler with the negative prompt of the samples, where its guidance uses one."""
        negative = None
        if sampler.guidance_rule == "classifier-free":
            text = common_negative(self.samples.calibration + self.samples.held_out)
            negative = NegativePrompt(rule="varied" if text is None else "fixed", text=text)
        return msgspec.structs.replace(sampler, negative_prompt=negative)
