"""Frames of a policy beside the full run's: what an evaluation kept of the best, the median and the worst prompt."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from budc.cli.output.metric_labels import metric_label
from budc.cli.report.figures import Cell, Figure
from budc.schema.frame_files import read_frames
from budc.schema.kept_frames import frames_folder
from budc.schema.report_names import POLICY

if TYPE_CHECKING:
    from budc.schema.attestation import Attestation
    from budc.schema.evaluation import MethodResult, SettingResult
    from budc.schema.kept_frames import KeptFrames, PromptFrames

MOST_BYTES = 2_800_000
"""Of all files of one policy: six of the largest, which take 3.7 MB as text, and the page may have 5."""
SMALL = 256
"""Pixels of a side up to which a picture is enlarged without smoothing."""


@dataclass(frozen=True)
class FrameSet:
    """The frames of one evaluation: digest -> content of each file."""

    evaluation: Attestation
    setting: SettingResult
    kept: KeptFrames
    files: Mapping[str, bytes]


class Compared(NamedTuple):
    """One prompt: the full run's frames and the policy's, under each other in a picture of each."""

    title: str
    text: str
    full: str
    """A data URI."""
    policy: str


@dataclass(frozen=True)
class FramesSection:
    """What a page shows of a policy's frames in one setting."""

    setting: str
    origin: str
    height: int
    width: int
    frames: int
    pixelated: bool
    prompts: Sequence[Compared]
    numbers: Figure
    """The values of these prompts; it has no chart."""


def find_frames(measured: Mapping[Path, Attestation]) -> tuple[tuple[FrameSet, ...], str]:
    """Return the frames of each setting of the first evaluation that has its files beside it, and what is missing.

    The first setting is always there, another where it does not make the page too large.

    Raises:
        ArtifactError: a file is not what its evaluation says.
    """
    absent = ""
    for path, attestation in measured.items():
        found, size, left_out = list[FrameSet](), 0, list[str]()
        for setting in attestation.document.settings:
            if setting.frames is None:
                continue
            files = read_frames(path, setting.frames)
            if files is None:
                absent = f"{path.name} kept frames, and {frames_folder(path).name}/ does not lie beside it."
                break
            more = sum(map(len, files.values()))
            if found and size + more > MOST_BYTES:
                left_out.append(setting.name)
                continue
            found.append(FrameSet(attestation, setting, setting.frames, files))
            size += more
        if found:
            note = f"Frames of {', '.join(left_out)} are left out: the page would be too large."
            return tuple(found), note if left_out else ""
    return (), absent


def frames_section(frames: FrameSet, key: str) -> FramesSection:
    """Return what the page shows of a policy's frames in one setting."""
    kept, setting = frames.kept, frames.setting
    policy = setting.method(POLICY)
    assert policy is not None  # every setting has it
    return FramesSection(
        setting=setting.name,
        origin=_origin(frames),
        height=kept.height,
        width=kept.width,
        frames=kept.frames,
        pixelated=max(kept.height, kept.width) <= SMALL,
        prompts=[
            Compared(
                title=_title(prompt, kept.ranked_by, policy),
                text=prompt.text,
                full=_uri(frames.files[prompt.full]),
                policy=_uri(frames.files[prompt.policy]),
            )
            for prompt in kept.prompts
        ],
        numbers=_numbers(kept, policy, key),
    )


def _origin(frames: FrameSet) -> str:
    kept, shape = frames.kept, frames.setting.shape
    unverified = "" if frames.evaluation.verified_by else ", which is not verified"
    parts = [f"from the evaluation of {frames.evaluation.document.issued_at}{unverified}"]
    assert shape is not None, "frames of a setting without a shape are refused"
    if (kept.height, kept.width) != (shape.height, shape.width):
        parts.append(f"scaled down from {shape.height} × {shape.width} to {kept.height} × {kept.width}")
    if kept.frames < shape.frames:
        parts.append(f"{kept.frames} of {shape.frames} frames")
    if not kept.lossless:
        parts.append("compressed with loss, which the difference shows as well")
    return "; ".join(parts)


def _title(prompt: PromptFrames, ranked_by: str, policy: MethodResult) -> str:
    label = metric_label(ranked_by)
    values = policy.samples.get(ranked_by)
    # A summary has no values of single prompts.
    value = "" if values is None else f": {label.title} {values[prompt.prompt]:.4g} {label.unit}".rstrip()
    return f"{prompt.rank.capitalize()} prompt{value}"


def _numbers(kept: KeptFrames, policy: MethodResult, key: str) -> Figure:
    names = list(policy.samples)
    rows: list[list[Cell]] = [
        [
            prompt.rank,
            prompt.prompt + 1,
            prompt.text,
            *(_value(policy.samples[name], prompt.prompt) for name in names),
        ]
        for prompt in kept.prompts
    ]
    columns = ["rank", "place", "prompt", *(metric_label(name).title for name in names)]
    return Figure(
        key, f"Best, median and worst prompt by {metric_label(kept.ranked_by).title}", "", "", columns, rows
    )


def _value(values: Sequence[float], index: int) -> float | None:
    return values[index] if index < len(values) else None


def _uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
