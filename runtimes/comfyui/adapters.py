"""LoRA on a MODEL: a loader that keeps which file a LoRA is from, and the check against those that a policy lists.

The engine's own loaders keep a LoRA's tensors but not its file, and a policy names a file by its digest. What other
nodes have added to the weights is told apart by identity: it is in none of the files that were loaded here.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.schema.errors import UsageError
from budc.schema.policy import PolicyDocument

KEY = "budc_adapters"
"""Key of the LoRA files among a MODEL's attachments."""

_FIELD = "adapters"
_LOAD = 'load it with the node "budc LoRA", before "Apply budc policy"'
_UNLOAD = "remove the LoRA loader"
_TEXT_ENCODER = ("lora_te", "text_encoder", "text_encoders")
"""Beginnings of the names of a LoRA's tensors that are not for the network."""


@dataclass(frozen=True)
class LoadedAdapter:
    """A LoRA file on a MODEL, at a scale; `patches` are the engine's objects of its tensors."""

    name: str
    digest: str
    scale: float
    patches: tuple[object, ...]


def load_adapter(patcher: Any, path: str | Path, scale: float) -> Any:
    """Return a clone of `patcher`, a MODEL, with a LoRA file on it.

    Raises:
        UsageError: some of its tensors, or all, are for another network.
    """
    import comfy.lora
    import comfy.lora_convert
    import comfy.utils

    path = Path(path)
    tensors = comfy.lora_convert.convert_lora(comfy.utils.load_torch_file(str(path), safe_load=True))
    names = comfy.lora.model_lora_keys_unet(patcher.model, {})
    patches = comfy.lora.load_lora(tensors, names, log_missing=False)
    used = {name for patch in patches.values() for name in getattr(patch, "loaded_keys", ())}
    rest = sorted(name for name in tensors if name not in used and not name.startswith(_TEXT_ENCODER))
    if rest or not patches:
        network = type(patcher.model.diffusion_model).__name__
        raise UsageError(
            f"{path.name}: {len(rest)} tensors are for no weight of this MODEL, a {network}"
            + (f" ({rest[0]})" if rest else ""),
            remedy="choose a LoRA for this network, with the names that ComfyUI has for its weights",
        )
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    clone = patcher.clone()
    clone.add_patches(patches, scale)
    loaded = LoadedAdapter(path.name, digest, float(scale), tuple(patches.values()))
    clone.set_attachments(KEY, (*(patcher.get_attachment(KEY) or ()), loaded))
    return clone


def check_adapters(document: PolicyDocument, denoiser: str, patcher: Any, settings: SettingsCheck) -> None:
    """Compare the LoRA on a MODEL with what the policy says of adapters on one of its denoisers.

    Raises:
        CalibrationMismatch: one is missing, one too many, or at another scale, and uncalibrated runs are not allowed.
    """
    rule = document.model.adapters
    if rule.rule == "any":
        return
    loaded: tuple[LoadedAdapter, ...] = patcher.get_attachment(KEY) or ()
    unknown = _unknown(patcher, loaded)
    if rule.rule == "none":
        if unknown or loaded:
            names = ", ".join(adapter.name for adapter in loaded)
            where = names or f"LoRA on {unknown} weights"
            settings.differ(_FIELD, f"the policy was calibrated for none; this MODEL has {where}", _UNLOAD)
        return
    if unknown:
        what = f"this MODEL has LoRA on {unknown} weights, and their file cannot be told"
        settings.differ(_FIELD, what, _LOAD)
    for field, what, remedy in _differences(document, denoiser, loaded):
        settings.differ(field, what, remedy)


def _differences(
    document: PolicyDocument, denoiser: str, loaded: tuple[LoadedAdapter, ...]
) -> Iterator[tuple[str, str, str]]:
    rule = document.model.adapters
    names = ", ".join(_described(adapter.name, adapter.digest) for adapter in loaded) or "none"
    wanted = {other.file: other for other in rule.scaled if other.denoiser in (None, denoiser)}
    present = {adapter.digest: adapter for adapter in loaded}
    for digest, other in wanted.items():
        if digest not in present:
            what = (
                f"the policy was calibrated with {_described(other.name, digest)} at scale {other.scale:g}, "
                f"this MODEL has {names}"
            )
            yield _FIELD, what, _LOAD
    allowed = {digest.removeprefix("sha256:") for digest in rule.digests} | wanted.keys()
    for adapter in loaded:
        if adapter.digest not in allowed:
            what = (
                f"this MODEL has {_described(adapter.name, adapter.digest)}, which the policy does not list"
            )
            yield _FIELD, what, _UNLOAD
        elif adapter is not present[adapter.digest]:
            yield _FIELD, f"{adapter.name} is on this MODEL twice", _UNLOAD
        elif adapter.digest in wanted:
            scale = wanted[adapter.digest].scale
            if not math.isclose(adapter.scale, scale, rel_tol=1e-6):
                what = f"the policy was calibrated for {scale:g}, this run has {adapter.scale:g}"
                yield f"scale of {adapter.name}", what, f"set its strength to {scale:g}"


def _unknown(patcher: Any, loaded: tuple[LoadedAdapter, ...]) -> int:
    """Return how many weights something was added to that is from none of the loaded files, or at another scale."""
    scales = {id(patch): adapter.scale for adapter in loaded for patch in adapter.patches}
    changed = sum(
        any(scales.get(id(patch)) != scale or of_weight != 1 for scale, patch, of_weight, *_ in patches)
        for patches in patcher.patches.values()
    )
    return changed + len(getattr(patcher, "hook_patches", ()))


def _described(name: str, digest: str) -> str:
    return f"{name} (sha256 {digest[:12]}…)"
