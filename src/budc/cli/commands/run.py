"""`budc run`: generate with a policy, and if asked beside the full run and a run of fewer steps."""

from __future__ import annotations

import contextlib
import statistics
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.dependencies import MODEL_PACKAGES, ONNX_PACKAGES, quiet_libraries, require
from budc.cli.trust_store import load_trust, open_trusted
from budc.runtimes.diffusers.pipeline import load_pipeline, profile_of
from budc.schema.errors import UsageError, WeightsMismatch, WeightsMissing, printable

if TYPE_CHECKING:
    from budc.cli.generation.comparison import Method
    from budc.policies.profile import ModelProfile
    from budc.schema.artifact import Artifact
    from budc.schema.digest_cache import DigestCache

_PATH = click.Path(path_type=Path)
_LARGEST_SEED = 2**53 - 1


@click.command("run")
@click.argument("file", type=_PATH, metavar="FILE|MODEL_DIR")
@click.option("--nfe", type=int, metavar="N", help="Which of the policies attached to MODEL_DIR.")
@click.option("--prompt", "prompts", multiple=True, required=True, metavar="TEXT", help="May be given again.")
@click.option(
    "--out",
    required=True,
    type=_PATH,
    metavar="FILE",
    help="video.mp4, or frames.png: a row of frames a prompt.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, _LARGEST_SEED),
    default=0,
    show_default=True,
    help="Prompt i starts from SEED + i.",
)
@click.option(
    "--weights", type=_PATH, metavar="DIR", help="Model folder; default embedded, or the hub cache."
)
@click.option(
    "--key",
    "keys",
    multiple=True,
    type=_PATH,
    metavar="PUB",
    help="A public key to trust, in place of the trust file (see `budc verify --help`).",
)
@click.option("--allow-unsigned", is_flag=True, help="Run an artifact that nobody signed.")
@click.option(
    "--allow-uncalibrated", is_flag=True, help="Run with other settings or weights than calibrated."
)
@click.option("--rehash", is_flag=True, help="Hash every file of the model again.")
@click.option(
    "--runtime",
    type=click.Choice(["diffusers", "onnxruntime"]),
    default="diffusers",
    show_default=True,
    help="onnxruntime takes the folder of `budc export onnx` as --weights, and needs no torch.",
)
@click.option(
    "--provider",
    metavar="NAME",
    help="Hardware for onnxruntime, cpu or cuda; default cpu. It never falls back to another.",
)
@click.option(
    "--compare", is_flag=True, help="Beside the full run and a run of fewer steps, from the same noise."
)
def run_command(
    file: Path,
    nfe: int | None,
    prompts: tuple[str, ...],
    out: Path,
    seed: int,
    weights: Path | None,
    keys: tuple[Path, ...],
    allow_unsigned: bool,
    allow_uncalibrated: bool,
    rehash: bool,
    runtime: str,
    provider: str | None,
    compare: bool,
) -> None:
    """Generate with the policy in the artifact FILE, or with one that is attached to MODEL_DIR.

    The artifact must be signed by a trusted key and the model must be, file by file, the one that it was compiled
    for. Weights are read from local safetensors or ONNX files; nothing is downloaded.
    """
    if not all(prompt.strip() for prompt in prompts):
        raise UsageError("--prompt: a prompt is empty", remedy="say what to generate")
    on_onnx = runtime == "onnxruntime"
    if on_onnx and compare:
        raise UsageError("--compare: only with --runtime diffusers", remedy="leave out --compare")
    if not on_onnx and provider is not None:
        raise UsageError("--provider: only with --runtime onnxruntime", remedy="--runtime onnxruntime")
    _check_before(on_onnx, out)
    from budc.progress import hashing
    from budc.schema.digest_cache import DigestCache
    from budc.schema.discover import load_policy

    trust = load_trust(keys)
    if file.is_dir():
        artifact = load_policy(file, nfe, trust=trust, allow_unsigned=allow_unsigned)
        weights = file if weights is None else weights
    else:
        artifact = open_trusted(file, trust, allow_unsigned=allow_unsigned)
    if not artifact.signed:
        click.echo(f"unsigned: nobody vouches for {printable(str(file))}", err=True)
    policy = {
        "artifact": artifact,
        "trust": trust,
        "allow_unsigned": allow_unsigned,
        "allow_uncalibrated": allow_uncalibrated,
        "digests": DigestCache.of_user(watch=hashing, rehash=rehash),
    }
    if on_onnx:
        page = _run_onnx(policy, weights, provider or "cpu", prompts, seed, out)
    else:
        page = _run_diffusers(policy, weights, prompts, seed, out, compare)
    click.echo(page)


def _check_before(on_onnx: bool, out: Path) -> None:
    packages, extra = (ONNX_PACKAGES, "onnx") if on_onnx else (MODEL_PACKAGES, "torch")
    require(*packages, "PIL", "imageio", "imageio_ffmpeg", extra=extra)
    from budc.cli.output.media import check_target

    check_target(out)


def _check_files(artifact: Artifact, folder: Path, digests: DigestCache, allow_uncalibrated: bool) -> None:
    """Judge the model's files before a library opens one; `apply` judges what was loaded of them."""
    from budc.schema.digests import find_variant

    try:
        find_variant(folder, artifact.document.model.variants, sha256=digests)
    except (WeightsMissing, WeightsMismatch):
        if not allow_uncalibrated:
            raise


def _run_onnx(
    policy: dict[str, Any],
    weights: Path | None,
    provider: str,
    prompts: tuple[str, ...],
    seed: int,
    out: Path,
) -> str:
    """Generate with an export and return what to print."""
    from budc.cli.generation.onnxruntime import open_export, run_onnx

    return run_onnx(open_export(folder=weights, provider=provider, **policy), prompts, seed, out)


def _run_diffusers(
    policy: dict[str, Any],
    weights: Path | None,
    prompts: tuple[str, ...],
    seed: int,
    out: Path,
    compare: bool,
) -> str:
    """Generate with the pipeline and return what to print."""
    from budc.policies.profile import find_weights

    profile = profile_of(policy["artifact"].document)
    folder = find_weights(profile, weights)
    _check_files(policy["artifact"], folder, policy["digests"], policy["allow_uncalibrated"])
    policy = policy | {"weights_dir": folder}
    # Whatever a library prints must not end up in the result.
    with contextlib.redirect_stdout(sys.stderr), _own_warnings():
        made = _generate(profile, policy, prompts, seed, out, compare)
    return _page(made, policy["artifact"], f"{printable(str(out))}, seed {seed}")


def _generate(
    profile: ModelProfile,
    policy: dict[str, Any],
    prompts: tuple[str, ...],
    seed: int,
    out: Path,
    compare: bool,
) -> list[Method]:
    from budc.cli.generation.comparison import methods, pictures, run_methods
    from budc.cli.generation.diffusers import Settings
    from budc.cli.output.media import write_media

    document = policy["artifact"].document
    quiet_libraries()
    pipe = load_pipeline(profile, weights=policy["weights_dir"])
    chosen = methods(document, compare=compare)
    settings = Settings.of(pipe, document, profile)
    for difference in run_methods(pipe, settings, chosen, prompts, seed, policy):
        click.echo(f"uncalibrated: {printable(difference)}", err=True)
    write_media(out, pictures(chosen))
    return chosen


def _page(made: list[Method], artifact: Artifact, wrote: str) -> str:
    if len(made) > 1:
        from budc.cli.generation.comparison import comparison_table

        return f"{comparison_table(made)}\nwrote {wrote}; figures are means over the prompts"
    document = artifact.document
    seconds = statistics.fmean(generation.seconds for generation in made[0].made)
    return f"wrote {wrote}, {document.budget.nfe} NFE of {document.sampler.steps} steps, {seconds:.2f} s each"


@contextlib.contextmanager
def _own_warnings() -> Iterator[None]:
    """Silence the runtime's warnings of what this command says itself."""
    from budc import UncalibratedWarning, UnsignedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncalibratedWarning)
        warnings.simplefilter("ignore", UnsignedWarning)
        yield
