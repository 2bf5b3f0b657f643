"""Samples that a user hands to `compile_policy`: conditioning and noise, checked, and held out from calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from budc.compiler.denoisers.conditioning import Condition, Conditioning, named_tensors
from budc.compiler.denoisers.identity import tensor_digest
from budc.schema.arguments import described
from budc.schema.canonical import digest
from budc.schema.errors import UsageError
from budc.schema.policy import PromptSet

_CONDITIONING = 'pass branch -> tensor (N, ...), such as {"cond": text, "uncond": empty}'
_NOISE = "pass a tensor (N, ...) of N initial latents, float32"
_CALIBRATION = "pass calibration=(conditioning, noise), of samples that are not measured on"
_PROXY = "pass proxy=(conditioning, noise), of smaller samples for the same network"
_HELD_OUT = "pass held_out=(conditioning, noise), both of samples that are not among the calibration samples"


def sample_conditions(conditioning: Mapping[str, Condition], noise: Tensor, name: str = "") -> Conditioning:
    """Return conditions and noise on the CPU, noise in float32; `name` is the argument that holds both, if one does.

    Raises:
        UsageError: not tensors by branch, another number of samples than there is noise for, or none; noise that is not
            finite floating-point numbers.
    """
    noise_name = f"{name}[1]" if name else "noise"
    conditioning_name = f"{name}[0]" if name else "conditioning"
    _check_noise(noise, noise_name)
    if not isinstance(conditioning, Mapping) or not conditioning:
        what = "an empty mapping" if isinstance(conditioning, Mapping) else described(conditioning)
        raise UsageError(f"{conditioning_name}: {what} names no guidance branch", remedy=_CONDITIONING)
    for branch, condition in conditioning.items():
        where = f"{conditioning_name}[{branch!r}]"
        if not isinstance(branch, str):
            raise UsageError(
                f"{conditioning_name}: the branch {described(branch)} is no text", remedy=_CONDITIONING
            )
        if not isinstance(condition, Tensor | Mapping):
            raise UsageError(f"{where}: {described(condition)} is no tensor", remedy=_CONDITIONING)
        for key, tensor in named_tensors(condition).items():
            _check_condition(tensor, where + (f"[{key!r}]" if key else ""), len(noise), noise_name)
    return Conditioning(dict(conditioning), noise.detach().float()).to(torch.device("cpu"))


def _check_branches(samples: Conditioning, calibration: Conditioning, name: str) -> None:
    if samples.embeddings.keys() != calibration.embeddings.keys():
        raise UsageError(
            f"{name}[0] has the branches {sorted(samples.embeddings)}, conditioning has "
            f"{sorted(calibration.embeddings)}",
            remedy="give both the same branches",
        )


def held_out_samples(held_out: Any, calibration: Conditioning) -> Conditioning | None:
    """Return the samples of `held_out`, None where it is None.

    Raises:
        UsageError: not a pair (conditioning, noise), other branches or shapes than calibration has, or a sample of it.
    """
    samples = _pair(held_out, "held_out", _HELD_OUT)
    if samples is None:
        return None
    _check_branches(samples, calibration, "held_out")
    if samples.noise.shape[1:] != calibration.noise.shape[1:]:
        raise UsageError(
            f"held_out[1] has samples of shape {tuple(samples.noise.shape[1:])}, noise has "
            f"{tuple(calibration.noise.shape[1:])}",
            remedy="give both the same shape",
        )
    if (both := _in_both(samples, calibration)) is not None:
        raise UsageError(
            f"held_out: its sample {both[0]} is calibration sample {both[1]}, so that the report would be about "
            "what the policy was selected on",
            remedy=_HELD_OUT,
        )
    return samples


def proxy_samples(proxy: Any, calibration: Conditioning) -> Conditioning | None:
    """Return the smaller samples of `proxy`, None where it is None.

    Raises:
        UsageError: not a pair (conditioning, noise), other branches than calibration has, or no smaller samples.
    """
    samples = _pair(proxy, "proxy", _PROXY)
    if samples is None:
        return None
    _check_branches(samples, calibration, "proxy")
    shape, real = tuple(samples.noise.shape[1:]), tuple(calibration.noise.shape[1:])
    fits = len(shape) == len(real) and all(ours <= theirs for ours, theirs in zip(shape, real, strict=True))
    if not fits or shape == real:
        raise UsageError(
            f"proxy[1] has samples of shape {shape}, which are not smaller than those of noise, {real}",
            remedy="give as many dimensions, none of them larger: fewer frames, rows or columns",
        )
    return samples


def calibration_samples(calibration: Any, measured: Conditioning) -> Conditioning | None:
    """Return the samples of `calibration`, None where it is None, which are none of those that are measured on.

    Raises:
        UsageError: not a pair (conditioning, noise), other branches or shapes than `measured` has, or a sample of it.
    """
    samples = _pair(calibration, "calibration", _CALIBRATION)
    if samples is None:
        return None
    if (
        samples.embeddings.keys() != measured.embeddings.keys()
        or samples.noise.shape[1:] != measured.noise.shape[1:]
    ):
        raise UsageError(
            "calibration: its branches or the shape of its noise are not those of conditioning and noise",
            remedy="give both the same branches and the same shape",
        )
    if (both := _in_both(samples, measured)) is not None:
        raise UsageError(
            f"calibration: its sample {both[0]} is sample {both[1]} of those that are measured on",
            remedy=_CALIBRATION,
        )
    return samples


def sample_sets(
    conditioning: Mapping[str, Condition], noise: Tensor, held_out: Any
) -> tuple[Conditioning, Conditioning | None]:
    """Return the calibration samples and the held-out ones. Raises UsageError: see the two functions above."""
    conditions = sample_conditions(conditioning, noise)
    return conditions, held_out_samples(held_out, conditions)


def prompt_set(samples: Conditioning | None) -> PromptSet:
    """Name a set of samples by the digests of its conditions and noise; None is the empty set."""
    if samples is None:
        return PromptSet(digest="sha256:" + "0" * 64, size=0)
    return PromptSet(digest=digest({"samples": [list(own) for own in _digests(samples)]}), size=len(samples))


def _pair(given: Any, name: str, remedy: str) -> Conditioning | None:
    if given is None:
        return None
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise UsageError(f"{name}: {described(given)} is not conditioning and noise", remedy=remedy)
    conditioning, noise = given
    return sample_conditions(conditioning, noise, name)


def _in_both(samples: Conditioning, others: Conditioning) -> tuple[int, int] | None:
    """Return the places in both of the first sample that is in both."""
    seen = {own: index for index, own in enumerate(_digests(others))}
    return next(((at, seen[own]) for at, own in enumerate(_digests(samples)) if own in seen), None)


def _check_noise(noise: Any, name: str) -> None:
    if not isinstance(noise, Tensor):
        raise UsageError(f"{name}: {described(noise)} is no tensor", remedy=_NOISE)
    if noise.ndim < 2 or not noise.is_floating_point():
        raise UsageError(
            f"{name} is {str(noise.dtype).removeprefix('torch.')} of shape {tuple(noise.shape)}, expected "
            "floating-point numbers with one dimension of samples and at least one more",
            remedy=_NOISE,
        )
    if len(noise) == 0:
        raise UsageError(f"{name} holds no sample", remedy="give conditions and noise of a few samples")
    if not noise.isfinite().all():
        raise UsageError(f"{name} is not finite", remedy=_NOISE)


def _check_condition(tensor: Any, where: str, samples: int, noise_name: str) -> None:
    if not isinstance(tensor, Tensor) or tensor.ndim == 0:
        raise UsageError(f"{where}: {described(tensor)} is no tensor of samples", remedy=_CONDITIONING)
    if len(tensor) != samples:
        raise UsageError(
            f"{where} has {len(tensor)} samples, {noise_name} has {samples}",
            remedy="give every sample a condition of each branch, and noise",
        )


def _digests(samples: Conditioning) -> list[tuple[str, ...]]:
    """Return for every sample the digests of its noise and conditions."""
    tensors = [samples.noise] + [
        tensor
        for branch in sorted(samples.embeddings)
        for _, tensor in sorted(named_tensors(samples.embeddings[branch]).items())
    ]
    return [tuple(tensor_digest(tensor[row]) for tensor in tensors) for row in range(len(samples))]
