"""Frames that an evaluation keeps: pictures of a few pixels with their files."""

import hashlib
import io
from pathlib import Path

import msgspec
import pytest

from budc.schema.evaluation import EvaluationDocument
from budc.schema.frame_files import write_frames
from budc.schema.kept_frames import RANKS, KeptFrames, PromptFrames

SIDE, FRAMES = 16, 3


def _strip(shade: int) -> bytes:
    """A WebP of three frames: plain, the full run's 0 and the policy's not."""
    image = pytest.importorskip("PIL.Image").new("RGB", (SIDE, SIDE * FRAMES), (shade, 0, 0))
    for frame in range(FRAMES):
        image.paste((shade, 80 * frame, 0), (0, SIDE * frame, SIDE, SIDE * (frame + 1)))
    file = io.BytesIO()
    image.save(file, format="WEBP", lossless=True)
    return file.getvalue()


def keep(evaluation: EvaluationDocument, path: Path, text: str = "a circle") -> EvaluationDocument:
    """Return an evaluation of four prompts with frames of three of them, whose files are written beside `path`."""
    files, prompts = {}, []
    for index, rank in enumerate(RANKS):
        pictures = [_strip(0), _strip(40 + 20 * index)]
        full, policy = (f"sha256:{hashlib.sha256(data).hexdigest()}" for data in pictures)
        prompts.append(PromptFrames(rank=rank, prompt=3 - index, text=text, full=full, policy=policy))
        files |= dict(zip(prompts[-1].files, pictures, strict=True))
    kept = KeptFrames(
        ranked_by="psnr", height=SIDE, width=SIDE, frames=FRAMES, lossless=True, prompts=prompts
    )
    write_frames(path, files)
    settings = [msgspec.structs.replace(evaluation.settings[0], frames=kept), *evaluation.settings[1:]]
    return msgspec.structs.replace(evaluation, settings=settings)
