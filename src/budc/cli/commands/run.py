"""`budc run`: generate with a policy, and on request compare it with the full run and a run of fewer steps."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import (
    LARGEST_SEED,
    PATH,
    device_option,
    former_key_option,
    lora_option,
    out_option,
    own_model_option,
    progress_option,
    rehash_option,
    require_evaluation_option,
    trust_options,
    weights_option,
)
from budc.schema.errors import UsageError, WeightsMissing

if TYPE_CHECKING:
    from budc.cli.generation.request import GenerationRequest
    from budc.policies.adapter_files import AdapterFile
    from budc.policies.profile import ModelProfile
    from budc.policies.samples import SampleImage
    from budc.schema.artifact import Artifact
    from budc.schema.policy import PolicyDocument


@dataclass(frozen=True)
class RunOptions:
    """The flags of `budc run`."""

    policy: str
    nfe: int | None
    prompts: tuple[str, ...]
    images: tuple[Path, ...]
    out: Path | None
    seed: int
    model: str | None
    weights: Path | None
    lora: tuple[str, ...]
    negative: str | None
    trusted: tuple[Path, ...]
    former_keys: tuple[Path, ...]
    require_evaluation: str | None
    allow_unsigned: bool
    allow_uncalibrated: bool
    rehash: bool
    runtime: str
    provider: str | None
    device: str | None
    compare: bool

    @property
    def on_onnx(self) -> bool:
        """Whether an export runs, without torch."""
        return self.runtime == "onnxruntime"


@click.command("run")
@click.argument("policy", metavar="FILE|MODEL_DIR|NAME")
@click.option(
    "--nfe", type=click.IntRange(1), metavar="N", help="Which of the policies of MODEL_DIR or NAME."
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    required=True,
    metavar="TEXT",
    help="What to show; may be given again.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=PATH,
    metavar="FILE",
    help="Picture to start from, for a model that takes one; given again, one for each prompt.",
)
@out_option(
    "FILE",
    "video.mp4, .gif or .webp, or a row of frames for each prompt: picture.png or .jpg; default a new file here.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, LARGEST_SEED),
    default=0,
    show_default=True,
    metavar="N",
    help="Seed of the noise; prompt i starts from N + i.",
)
@own_model_option
@weights_option()
@lora_option
@click.option(
    "--negative",
    metavar="TEXT",
    help="Negative prompt; default the policy's, or the profile's where it varied.",
)
@trust_options
@former_key_option
@require_evaluation_option
@click.option(
    "--allow-uncalibrated", is_flag=True, help="Run with other settings or weights than calibrated."
)
@rehash_option
@click.option(
    "--runtime",
    type=click.Choice(["diffusers", "onnxruntime"]),
    default="diffusers",
    show_default=True,
    help="onnxruntime takes the folder of `budc export onnx` as --weights, and needs no torch.",
)
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    help="Hardware for onnxruntime; default cpu. Never replaced by another.",
)
@progress_option
@device_option
@click.option(
    "--compare", is_flag=True, help="Also make the full run and a run of fewer steps, from the same noise."
)
def run_command(**flags: Any) -> None:
    """Generate pictures or a video with a policy.

    The policy is the artifact FILE, one that is attached to MODEL_DIR, or one that came with the embedded model NAME.
    FILE and those of MODEL_DIR must be signed by a key that you trust; those of the package are believed as it is. The
    model must be, file by file, the one that it was compiled for. Weights are read from local safetensors or ONNX
    files; nothing is downloaded.
    """
    from budc.cli.output.verdict import verdict

    options = RunOptions(**flags)
    _check_flags(options)
    request = _request(options)
    if options.on_onnx:
        from budc.cli.generation.onnxruntime import run_onnx

        done = run_onnx(request, options.provider or "cpu", compare=options.compare)
    else:
        from budc.cli.generation.diffusers import run_diffusers

        done = run_diffusers(request, compare=options.compare)
    sentence = verdict(request.document, request.evaluations(), done.speed)
    click.echo(f"{sentence}\n\n{done.page}")


def _check_flags(options: RunOptions) -> None:
    """Refuse what the flags alone show to be wrong, and missing packages. Imports none of them."""
    from budc.cli.dependencies import MEDIA_PACKAGES, MODEL_PACKAGES, ONNX_PACKAGES, require
    from budc.cli.output.target import check_target

    if not all(prompt.strip() for prompt in options.prompts):
        raise UsageError("--prompt: a prompt is empty", remedy="say what to generate")
    if options.on_onnx and options.negative is not None:
        raise UsageError(
            "--negative: an export has the negative prompt that it was made with",
            remedy="budc export onnx --negative TEXT",
        )
    if options.on_onnx and options.images:
        raise UsageError("--image: only with --runtime diffusers", remedy="leave out --image")
    if options.on_onnx and options.device is not None:
        raise UsageError(
            "--device: only with --runtime diffusers", remedy="--provider says where ONNX Runtime computes"
        )
    if not options.on_onnx and options.provider is not None:
        raise UsageError("--provider: only with --runtime onnxruntime", remedy="--runtime onnxruntime")
    _check_export(options)
    check_target(Path("video.mp4") if options.out is None else options.out)
    if options.on_onnx:
        require(*ONNX_PACKAGES, *MEDIA_PACKAGES, extra="onnx")
    else:
        require(*MODEL_PACKAGES, *MEDIA_PACKAGES, *(["peft"] if options.lora else []))


def _check_export(options: RunOptions) -> None:
    """Refuse the folder of an export where diffusers is to run it."""
    folders = (options.weights, Path(options.policy))
    export = next((folder for folder in folders if folder is not None and _is_export(folder)), None)
    if export is None or options.on_onnx:
        return
    policy = "POLICY" if export == Path(options.policy) else options.policy
    raise UsageError(
        f"{export} is an export to ONNX, which diffusers does not run",
        remedy=f"budc run {policy} --runtime onnxruntime --weights {export}",
    )


def _is_export(folder: Path) -> bool:
    """Whether it is the folder of an export, and of nothing that diffusers could run."""
    from budc.runtimes.exported.manifest import MANIFEST

    return (folder / MANIFEST).is_file() and not (folder / "model_index.json").exists()


def _request(options: RunOptions) -> GenerationRequest:
    """Open the policy and find the model, without importing what runs it."""
    from budc.cli.generation.policy_choice import choose_policy
    from budc.cli.generation.request import GenerationRequest
    from budc.policies.artifact_profile import profile_of
    from budc.policies.deployment import Deployment, calibrated
    from budc.progress import hashing
    from budc.schema.digest_cache import DigestCache
    from budc.schema.errors import printable

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
