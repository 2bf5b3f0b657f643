"""Adapters (LoRA) in a loaded model, which a policy is then bound to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import diffusers
import msgspec

from budc.compiler.models.folder import read_index
from budc.compiler.models.model import LoadedModel
from budc.policies.adapter_files import AdapterFile
from budc.runtimes.sampling.adapters import active_adapters, load_adapters
from budc.runtimes.sampling.loading import loading
from budc.schema.errors import CalibrationMismatch
from budc.schema.hashing import sha256_files
from budc.schema.policy import AdapterRule, ModelBinding, ScaledAdapter


def with_adapters(model: LoadedModel, binding: ModelBinding, files: Sequence[AdapterFile]) -> ModelBinding:
    """Load adapter files into a model's denoisers; return the binding of the model with them.

    Raises:
        UnsupportedModel: see `load_adapters`.
        WeightsMissing: the folder's pipeline cannot be put together.
    """
    names = list(model.profile.denoisers)
    denoisers = dict(zip(names, model.denoisers, strict=True))
    load_adapters(_pipeline(model, denoisers), files, names)
    digests = sha256_files(file.path for file in files)
    scaled = []
    for name, denoiser in denoisers.items():
        active = active_adapters(denoiser)
        denoiser.requires_grad_(False)
        scaled += [
            ScaledAdapter(
                name=file.name,
                file=digests[file.path],
                loaded=active[file.name].root(),
                scale=file.scale,
                denoiser=name if len(names) > 1 else None,
            )
            for file in files
            if file.is_for(name)
        ]
    return msgspec.structs.replace(binding, adapters=AdapterRule(rule="listed", scaled=scaled))


def check_loaded(bound: ModelBinding, loaded: ModelBinding) -> None:
    """Check that a policy's adapters add what they added when it was made; `loaded` is the binding with them.

    Raises:
        CalibrationMismatch: one does not, as the libraries now load it otherwise.
    """
    before = {(item.file, item.denoiser): item for item in bound.adapters.scaled}
    for now in loaded.adapters.scaled:
        # A policy may list one adapter for all denoisers.
        item = before.get((now.file, now.denoiser)) or before.get((now.file, None))
        if item is not None and item.loaded not in (None, now.loaded):
            raise CalibrationMismatch(
                f"adapters: {item.name} adds other tensors here than when the policy was made",
                remedy="use the version of diffusers that it was made with, which `budc inspect --json` lists",
            )


def _pipeline(model: LoadedModel, denoisers: Mapping[str, object]) -> object:
    """Return the folder's pipeline with nothing but these denoisers: it knows how its adapters are written."""
    index = read_index(model.profile, model.folder)
    others = {name: None for name, value in index.items() if isinstance(value, list)}
    pipeline_class = getattr(diffusers, model.profile.pipeline_class)
    with loading(model.folder):
        return pipeline_class.from_pretrained(model.folder, **{**others, **denoisers}, local_files_only=True)
