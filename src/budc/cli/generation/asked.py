"""What the flags of `budc run` ask for: the policy, opened; the model, found; a picture for each prompt."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from budc.schema.errors import UsageError, WeightsMissing

if TYPE_CHECKING:
    from budc.cli.generation.request import GenerationRequest
    from budc.cli.generation.run_options import RunOptions
    from budc.policies.adapter_files import AdapterFile
    from budc.policies.profile import ModelProfile
    from budc.policies.samples import SampleImage
    from budc.schema.artifact import Artifact
    from budc.schema.policy import PolicyDocument


def asked(options: RunOptions) -> GenerationRequest:
    """Open the policy and find the model, without importing what runs it. Raises BudcError where one is refused."""
    from budc.cli.generation.policy_choice import choose_policy
    from budc.cli.generation.request import GenerationRequest
    from budc.policies.artifact_profile import profile_of
    from budc.policies.deployment import Deployment, calibrated
    from budc.progress import hashing
    from budc.schema.digest_cache import DigestCache
    from budc.schema.printable import printable

    artifact, trust = choose_policy(
        options.policy,
        options.nfe,
        (*options.trusted, *options.former_keys),
        required=options.require_evaluation,
        allow_unsigned=options.allow_unsigned,
    )
    profile = calibrated(profile_of(artifact.document, options.model), artifact.document)
    profile = Deployment(negative=options.negative).deployed(profile)
    images = _images(options, artifact.document)
    if not artifact.signed:
        click.echo(f"unsigned: nobody vouches for {printable(options.policy)}", err=True)
    return GenerationRequest(
        artifact=artifact,
        adapters=_adapters(options, artifact),
        trust=trust,
        allow_unsigned=options.allow_unsigned,
        allow_uncalibrated=options.allow_uncalibrated,
        digests=DigestCache.of_user(watch=hashing, rehash=options.rehash),
        profile=profile,
        weights=_weights(options, profile),
        prompts=options.prompts,
        images=images,
        seed=options.seed,
        out=options.out,
        device=options.device,
    )


def _images(options: RunOptions, document: PolicyDocument) -> tuple[SampleImage | None, ...]:
    """Return the image of each prompt, where the policy has some."""
    from budc.policies.conditioning_images import sample_image

    prompts, files = len(options.prompts), options.images
    if not files and document.images and not options.on_onnx:
        raise UsageError(
            f"--image: {document.name} is for a model that starts from a picture", remedy="--image FILE"
        )
    if files and not document.images:
        raise UsageError(
            f"--image: {document.name} is for a model that takes prompts alone", remedy="leave out --image"
        )
    if len(files) not in (0, 1, prompts):
        raise UsageError(
            f"--image: {len(files)} pictures for {prompts} prompts", remedy="give one, or one for each prompt"
        )
    images = [sample_image(file, "--image") for file in files]
    return tuple(images[index % len(images)] if images else None for index in range(prompts))


def _adapters(options: RunOptions, artifact: Artifact) -> tuple[AdapterFile, ...]:
    from budc.policies.listed_adapters import given_adapters

    if options.on_onnx:
        if options.lora:
            raise UsageError("--lora: only with --runtime diffusers", remedy="leave out --lora")
        return ()
    return given_adapters(artifact.document, options.lora)


def _weights(options: RunOptions, profile: ModelProfile) -> Path:
    from budc.policies.profile import find_weights, profile_names

    folder = options.weights
    if folder is None and options.policy not in profile_names() and os.path.isdir(options.policy):
        folder = Path(options.policy)
    if options.on_onnx:
        if folder is None:
            raise UsageError(
                "--weights: the ONNX runtime needs the folder of an export",
                remedy="--weights DIR, made with `budc export onnx`",
            )
        if not os.path.isdir(folder):
            raise WeightsMissing(
                f"--weights: {folder} is not a folder", remedy="--weights DIR, made with `budc export onnx`"
            )
        return folder
    return find_weights(profile, folder)
