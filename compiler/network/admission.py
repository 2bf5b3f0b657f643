"""May this policy run on this network: who signed it, and are class, weights, scheduler and samples those it is for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

from torch import Tensor

from budc.compiler.api_inputs import as_denoiser, check_scheduler
from budc.compiler.api_samples import sample_conditions
from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.network.binding import (
    blocks_of,
    class_of,
    guidance_of,
    parts_of,
    sampler_binding,
    weights_of,
)
from budc.compiler.network.compiled import Compiled
from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.runtimes.admission.additions import RUN_NETWORK, check_additions
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.admission.trust import Source, trusted_policy
from budc.runtimes.sampling.scheduler_config import config_differences
from budc.schema.additions import at_lowest_version
from budc.schema.arguments import whole_number
from budc.schema.errors import UnsupportedModel, UsageError, WeightsMismatch
from budc.schema.policy import DenoiserBinding, Policy, PolicyDocument, SamplerBinding
from budc.schema.statement import encode_statement, policy_id
from budc.schema.trust import Trust

Given = tuple[Any, Mapping[str, Any], Tensor, Any]
"""Denoiser, conditioning, noise and scheduler as the user passed them."""


class Admitted(NamedTuple):
    """A run that may begin."""

    expected: Expected
    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    denoiser: BatchedDenoiser
    form: LinearForm

    @property
    def policy(self) -> Policy:
        """What runs."""
        return self.expected.policy


def admitted(
    policy: Source | Compiled,
    given: Given,
    weights: Any,
    trust: Trust | str | PathLike[str] | None,
    allow: tuple[bool, bool],
    batch: int | None,
) -> Admitted:
    """Return a run of `policy` on what is `given`, after every check; `allow` unsigned and uncalibrated ones.

    Raises:
        TrustError, UsageError, UnsupportedModel, WeightsMismatch, CalibrationMismatch: see `budc.run`.
    """
    network, conditioning, noise, scheduler = given
    if batch is not None:
        remedy = "pass the most samples of one forward, or None"
        batch = whole_number(batch, "batch", least=1, most=1 << 20, remedy=remedy)
    check_scheduler(scheduler)
    conditions = sample_conditions(conditioning, noise)
    settings = SettingsCheck(allow[1])
    expected = expected_of(policy, trust, allow[0])
    denoiser = _denoiser(expected, network, noise)
    if expected.denoisers:
        _check_weights(expected.denoisers, denoiser, weights, settings)
    _check_sampler(expected.sampler, scheduler, settings)
    if set(conditioning) != set(denoiser.branches):
        raise UsageError(
            f"conditioning has the branches {sorted(map(str, conditioning))}, "
            f"the policy has {sorted(denoiser.branches)}",
            remedy="give each branch of the policy its condition",
        )
    remedy = "pass noise of the shape that the policy was compiled for"
    settings.require("latents", expected.latents, tuple(noise.shape[1:]), remedy)
    sigmas, timesteps = tuple(expected.sampler.sigmas), tuple(expected.sampler.timesteps)
    form = NoiseSchedule.of(scheduler, sigmas, timesteps).linear_form()
    return Admitted(expected, sigmas, timesteps, BatchedDenoiser(denoiser, conditions, batch), form)


class Expected(NamedTuple):
    """What a policy is for; `classes`, `blocks` and `guidance` have one entry for each of its denoisers."""

    policy: Policy
    sampler: SamplerBinding
    latents: tuple[int, ...]
    classes: list[str]
    blocks: list[str | None]
    guidance: list[dict[str, float]]
    denoisers: Sequence[DenoiserBinding] = ()
    """With the weights that the policy is bound to; none where it was just compiled."""
    name: str = ""
    document: PolicyDocument | None = None
    """The artifact's; none where it was just compiled."""

    @property
    def policy_id(self) -> str | None:
        """The id of the artifact; None where the policy is in none."""
        return (
            None if self.document is None else policy_id(encode_statement(at_lowest_version(self.document)))
        )


def expected_of(
    policy: Source | Compiled, trust: Trust | str | PathLike[str] | None, allow_unsigned: bool
) -> Expected:
    """Return what a policy for a network is for, once it may be believed.

    Raises:
        TrustError, ArtifactError: see `trusted_policy`.
        UsageError, UnsupportedModel, UnsupportedVersion: it is not for a network, or does not say how that is run.
    """
    if isinstance(policy, Compiled):
        return _of_compiled(policy)
    document = trusted_policy(policy, trust, allow_unsigned).document
    return _of_document(document)


def _of_compiled(compiled: Compiled) -> Expected:
    denoiser = compiled.origin.denoiser
    parts = parts_of(denoiser)
    return Expected(
        compiled.policy,
        sampler_binding(denoiser, compiled.schedule),
        compiled.origin.latents,
        [class_of(part) for part in parts],
        [blocks_of(part) for part in parts],
        [dict(guidance_of(part)) for part in parts],
    )


def _of_document(document: PolicyDocument) -> Expected:
    model = document.model
    if model.kind != "network":
        raise UsageError(
            f"policy: {document.name} is for the pipeline {model.pipeline_class}", remedy="use budc.apply"
        )
    check_additions(document, RUN_NETWORK)
    if not model.latents or not all(denoiser.guidance for denoiser in model.denoisers):
        raise UnsupportedModel(
            f"{document.name} does not say how its network is run (model.latents, model.denoisers.guidance)",
            remedy="use an artifact that compile_policy(...).save has written",
        )
    return Expected(
        document.policy,
        document.sampler,
        tuple(model.latents),
        [denoiser.class_name for denoiser in model.denoisers],
        [denoiser.blocks for denoiser in model.denoisers],
        [{item.branch: item.weight for item in denoiser.guidance} for denoiser in model.denoisers],
        model.denoisers,
        document.name,
        document,
    )


def _denoiser(expected: Expected, network: Any, noise: Tensor) -> Denoiser:
    """Return the network as a denoiser, of the classes, trunks and guidance that the policy is for."""
    denoiser = as_denoiser(network, expected.guidance[0], expected.blocks[0] or "blocks", noise.device)
    parts = parts_of(denoiser)
    found: dict[str, tuple[list[Any], list[Any]]] = {
        "of class": ([class_of(part) for part in parts], expected.classes),
        "with the blocks": ([blocks_of(part) for part in parts], expected.blocks),
        "guided by": ([dict(guidance_of(part)) for part in parts], expected.guidance),
        "taking over at the steps": (
            list(denoiser.first_steps(expected.sampler.timesteps)),
            list(expected.sampler.first_steps),
        ),
    }
    for what, (actual, wanted) in found.items():
        if actual != wanted:
            raise UnsupportedModel(
                f"denoiser: it is {what} {_listed(actual)}, the policy is for one {what} {_listed(wanted)}",
                remedy="pass the network that the policy was compiled for",
            )
    return denoiser


def _check_weights(
    bindings: Sequence[DenoiserBinding], denoiser: Denoiser, weights: Any, settings: SettingsCheck
) -> None:
    """Compare the tensor root of each denoiser's weights with the policy's."""
    for binding, own in zip(bindings, weights_of(denoiser, weights), strict=True):
        if own.tensor_root == binding.tensor_root:
            continue
        what = f"{binding.name} has tensor root {own.tensor_root}, the policy is for {binding.tensor_root}"
        if not settings.allow or own.architecture != binding.architecture:
            raise WeightsMismatch(
                f"weights: {what}",
                remedy="load the weights that the policy was saved for, or compile one for these",
            )
        settings.differ("weights", what)


def _check_sampler(sampler: SamplerBinding, scheduler: Any, settings: SettingsCheck) -> None:
    settings.require("scheduler", sampler.scheduler, type(scheduler).__name__)
    if sampler.scheduler == type(scheduler).__name__:
        remedy = f"pass {sampler.scheduler} with these settings"
        settings.require_settings("scheduler", config_differences(sampler.config, scheduler), remedy)


def _listed(values: list[Any]) -> str:
    return ", ".join("none" if value is None else str(value) for value in values) or "none"
