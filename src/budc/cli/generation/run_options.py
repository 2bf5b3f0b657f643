"""The flags of `budc run`, and what they alone show to be wrong. Nothing that runs a model is imported."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from budc.schema.errors import UsageError


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


def check_flags(options: RunOptions) -> None:
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
