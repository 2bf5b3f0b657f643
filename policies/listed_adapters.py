"""Adapter files that the user gives for a policy, against those that the policy was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from budc.option_names import option, worded
from budc.policies.adapter_files import AdapterFile, adapter_files
from budc.schema.errors import CalibrationMismatch, UsageError
from budc.schema.hashing import sha256_files
from budc.schema.policy import PolicyDocument, ScaledAdapter


def given_adapters(document: PolicyDocument, texts: Sequence[str]) -> tuple[AdapterFile, ...]:
    """Return the adapter files that the user names for a policy, which must be given some if it was made with some.

    Raises:
        UsageError: none is given.
        BudcError: see `adapter_files`.
    """
    model = document.model
    if model.adapters.scaled and not texts:
        wanted = ", ".join(f"{adapter.name} at scale {adapter.scale:g}" for adapter in model.adapters.scaled)
        raise UsageError(
            f"{option('lora')}: the policy was calibrated with {wanted}",
            remedy=worded("--lora FILE:SCALE for each of them", "lora=('FILE:SCALE', …), each of them"),
        )
    return adapter_files(texts, [denoiser.name for denoiser in model.denoisers])


def listed_adapters(document: PolicyDocument, texts: Sequence[str]) -> tuple[AdapterFile, ...]:
    """Return the adapter files that the user names, which must be those of the policy, each at its scale.

    Raises:
        UsageError: none is given, or the policy was made without adapters.
        CalibrationMismatch: one is missing, is another file, or is at another scale.
        BudcError: see `adapter_files`.
    """
    files = given_adapters(document, texts)
    rule = document.model.adapters
    if files and rule.rule == "none":
        raise UsageError(
            f"{option('lora')}: {document.name} was made without adapters",
            remedy=f"leave {option('lora')} out",
        )
    if rule.scaled:
        digests = sha256_files(file.path for file in files)
        for denoiser in document.model.denoisers:
            own = [file for file in files if file.is_for(denoiser.name)]
            expected = [item for item in rule.scaled if item.denoiser in (None, denoiser.name)]
            _compare(expected, own, digests, denoiser.name)
    return files


def _compare(
    expected: Sequence[ScaledAdapter],
    given: Sequence[AdapterFile],
    digests: Mapping[Path, str],
    denoiser: str,
) -> None:
    """Compare the adapters of one denoiser. Raises CalibrationMismatch."""
    left = {digests[file.path]: file for file in given}
    for adapter in expected:
        file = left.pop(adapter.file, None)
        if file is None:
            names = ", ".join(f"{other.path} ({digests[other.path][:12]}…)" for other in given) or "none"
            raise CalibrationMismatch(
                f"{option('lora')}: the policy was calibrated with {adapter.name} (sha256 {adapter.file[:12]}…) at "
                f"scale {adapter.scale:g} in {denoiser}, which is none of those given ({names})",
                remedy="give that file, unchanged",
            )
        if file.scale != adapter.scale:
            raise CalibrationMismatch(
                f"{option('lora')}: {file.path}: the policy was calibrated with it at scale {adapter.scale:g} in "
                f"{denoiser}, not {file.scale:g}",
                remedy=option("lora", f"{file.path}:{adapter.scale:g}"),
            )
    for file in left.values():
        raise CalibrationMismatch(
            f"{option('lora')}: {file.path}: the policy was not calibrated with it in {denoiser}",
            remedy="leave it out",
        )
