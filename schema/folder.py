"""Files of a model folder by relative path; none outside of the folder is ever opened.

Links are followed only to files inside the folder, with one exception: a snapshot of the hub cache
(`…/snapshots/<revision>`) consists of links into the `blobs` folder two levels up.
"""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path

from budc.schema.errors import UnsafeWeights, WeightsMissing

_RELATIVE = re.compile(r"[A-Za-z0-9._+=@-]+(?:/[A-Za-z0-9._+=@-]+)*")
_LOADABLE = (".safetensors", ".index.json", ".onnx", ".onnx.data", ".onnx_data",
             ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5", ".gguf")  # fmt: skip


def resolve(folder: str | os.PathLike[str], relative: str) -> Path:
    """Return the real path of the regular file `relative` in `folder`.

    Raises:
        UnsafeWeights: the path is absolute, holds "..", a backslash or another character that no artifact may
            hold, or it leads out of the folder through a link, or to something that is not a file.
        WeightsMissing: there is no such file.
    """
    if not _RELATIVE.fullmatch(relative) or {".", ".."} & set(relative.split("/")):
        raise UnsafeWeights(f"{relative!r} is not a plain relative path")
    try:
        root = Path(os.path.realpath(folder))
        target = Path(os.path.realpath(root / relative, strict=True))
        mode = target.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WeightsMissing(f"{relative} is not in {folder}: {reason}") from error
    if not any(target.is_relative_to(base) for base in _allowed(root)):
        raise UnsafeWeights(f"{relative} is a link to {target}, out of the model folder {folder}")
    if not stat.S_ISREG(mode):
        raise UnsafeWeights(f"{relative} in {folder} is not a regular file")
    return target


def unlisted(folder: str | os.PathLike[str], relatives: Iterable[str]) -> list[str]:
    """Return weights and shard indices that lie beside listed ones and that a loader could pick instead.

    Args:
        folder: the model folder.
        relatives: the listed paths.

    Raises:
        UnsafeWeights: a folder cannot be listed.
    """
    listed = set(relatives)
    subfolders = {path.rpartition("/")[0] for path in listed if path.endswith(_LOADABLE)}
    rivals = []
    for subfolder in sorted(subfolders):
        try:
            names = sorted(os.listdir(Path(folder, subfolder)))
        except OSError as error:
            raise UnsafeWeights(
                f"cannot list {Path(folder, subfolder)}: {error.strerror}, so nobody can tell what a loader would pick"
            ) from error
        for name in names:
            relative = f"{subfolder}/{name}" if subfolder else name
            if name.endswith(_LOADABLE) and relative not in listed:
                rivals.append(relative)
    return rivals


def _allowed(root: Path) -> tuple[Path, ...]:
    if root.parent.name == "snapshots":
        return (root, root.parent.parent / "blobs")
    return (root,)
