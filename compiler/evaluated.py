"""What an evaluation measured, and its files: plain or signed, with the frames that it keeps beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from budc.option_names import python_names
from budc.schema.arguments import path_argument, signer_argument
from budc.schema.attestation import SUFFIX, seal_evaluation
from budc.schema.errors import UsageError
from budc.schema.evaluation import EvaluationDocument, plain_file
from budc.schema.files import write_atomic
from budc.schema.frame_files import remove_former_frames, write_frames
from budc.schema.signers import Signer


@dataclass(frozen=True)
class Evaluated:
    """The evaluation of one policy, and the files of the frames that it keeps, by their names."""

    document: EvaluationDocument
    frames: Mapping[str, bytes] = field(default_factory=dict)

    def content(self, signer: Signer | None) -> bytes:
        """Return the evaluation's file, signed if there is a signer. Raises as `seal_evaluation` does."""
        return plain_file(self.document) if signer is None else seal_evaluation(self.document, signer)

    def write(self, target: Path, content: bytes) -> None:
        """Write the file, whole or not at all, after its frames. Raises OutputError."""
        if self.frames:
            write_frames(target, self.frames)
        write_atomic(target, content)
        if self.frames:
            remove_former_frames(target, self.frames)

    @python_names()
    def save(
        self,
        path: str | PathLike[str],
        *,
        key: str | PathLike[str] | Signer | None = None,
        summary: bool = False,
    ) -> Path:
        """Write the evaluation, and return its path.

        Args:
            path: of the file, which is replaced whole; of NAME.budc.json it is NAME.evaluation.json beside it.
            key: the evaluator's private key: a path, "env:NAME", or a signer; unsigned if left out.
            summary: leave out the values of each sample, which take most of its size.

        Raises:
            UsageError: the file has another suffix, or an argument is of another kind.
            ArtifactTooLarge: a signed evaluation of so many samples does not fit; a summary does.
            KeyUnusable, OutputError: the key cannot be used, the file cannot be written.
        """
        target = path_argument(path, "path", f'pass the file to write, such as "policy{SUFFIX}"')
        if not target.name.endswith(SUFFIX):
            raise UsageError(
                f"path: {target} does not end with {SUFFIX}, so that `budc verify` would not find it",
                remedy=f"name it as the policy: NAME.budc.json has NAME{SUFFIX} beside it",
            )
        saved = Evaluated(self.document.summary(), self.frames) if summary else self
        self.write(target, saved.content(signer_argument(key)))
        return target
