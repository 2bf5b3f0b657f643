"""Files of an export that are opened long after they were verified: what has changed since is verified again."""

import os
from collections.abc import Mapping
from pathlib import Path

from budc.schema.digest_cache import file_state
from budc.schema.errors import WeightsMismatch
from budc.schema.folder import resolve
from budc.schema.hashing import sha256_files


def folder_state(folder: Path) -> dict[str, str]:
    """Return path below `folder` → identity, size and times of every file; taken before the folder is verified."""
    paths = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return {str(path.relative_to(folder)): file_state(path) for path in paths if path.is_file()}


class VerifiedFiles:
    """The files of a verified export.

    Args:
        folder: the export.
        files: path below it → sha256.
        state: `folder_state` from before the verification.
    """

    def __init__(self, folder: Path, files: Mapping[str, str], state: Mapping[str, str]) -> None:
        self._folder, self._files, self._state = folder, files, dict(state)

    def confirm(self) -> None:
        """Verify the files whose identity, size or times have changed; call it right before one is opened.

        Raises:
            WeightsMissing, WeightsMismatch, UnsafeWeights: a file is gone, has other content, or became a link out.
        """
        paths = {name: resolve(self._folder, name) for name in self._files}
        state = {name: file_state(path) for name, path in paths.items()}
        changed = [name for name in paths if state[name] != self._state.get(name)]
        digests = sha256_files(paths[name] for name in changed)
        for name in changed:
            if digests[paths[name]] != self._files[name]:
                raise WeightsMismatch(
                    f"{name} in {self._folder} has changed since the export was verified",
                    remedy="restore the file and load the export again",
                )
        self._state.update(state)
