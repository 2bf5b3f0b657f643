"""Kept frames: pictures of the prompts that a policy does best, in the middle and worst, beside the full run's.

An evaluation has their digests. The files lie beside it: those of `NAME.evaluation.json` in the folder `NAME.frames`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

from msgspec import Meta

from budc.schema.fields import Count, Digest, Name, Pixels, Prompt, Strict
from budc.schema.report_names import FULL, POLICY

Rank = Literal["best", "median", "worst"]
RANKS: Final[tuple[Rank, ...]] = ("best", "median", "worst")
MOST_FRAMES: Final = 16
"""Of a clip; of a longer one as many are kept, evenly spread."""
MOST_BYTES: Final = 450_000
"""Of one file, so that all of them fit into a page of 5 MB."""


class PromptFrames(Strict, frozen=True, kw_only=True):
    """One prompt, as the full run and as the policy shows it."""

    rank: Rank
    prompt: Count
    """Its place in the set of prompts, from 0."""
    text: Prompt
    full: Digest
    """Of the file: WebP, the frames of a clip under each other."""
    policy: Digest

    @property
    def files(self) -> Mapping[str, str]:
        """File name -> digest. A name has what it shows, and enough of the digest never to be another picture's."""
        pictures = {FULL: self.full, POLICY: self.policy}
        return {
            f"{self.rank}-{name}-{digest.removeprefix('sha256:')[:16]}.webp": digest
            for name, digest in pictures.items()
        }


class KeptFrames(Strict, frozen=True, kw_only=True):
    """The prompts of a setting of which frames were kept; all pictures have one size."""

    ranked_by: Name
    """The metric by which the policy does them best and worst."""
    height: Pixels
    width: Pixels
    """Of one frame as it was kept: large ones are scaled down."""
    frames: Annotated[int, Meta(ge=1, le=MOST_FRAMES)]
    """Of a clip, as many as were kept; 1 for images."""
    lossless: bool = False
    """Whether the files have every pixel as it was decoded, or at this size."""
    prompts: Annotated[Sequence[PromptFrames], Meta(min_length=1, max_length=len(RANKS))]

    @property
    def files(self) -> Mapping[str, str]:
        """File name -> digest, of all prompts."""
        return {name: digest for prompt in self.prompts for name, digest in prompt.files.items()}


def frames_folder(evaluation: Path) -> Path:
    """Return where the frames of an evaluation are: `NAME.frames` beside `NAME.evaluation.json`."""
    return evaluation.with_name(f"{evaluation.name.removesuffix('.evaluation.json')}.frames")
