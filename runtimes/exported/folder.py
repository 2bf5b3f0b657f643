"""Export folders, opened as if a stranger had made them: nothing reaches a runtime that was not looked at here.

    manifest = verify_export(folder, variant)        # by a policy that lists the folder's files
    variant, manifest = describe_export(folder)      # before there is one

First the digests that the policy lists, then the manifest, then the graphs (`budc.runtimes.exported.graphs`). ONNX
Runtime opens the files by name afterwards, so whoever can write into the folder meanwhile is not stopped.
"""

import os

from budc.runtimes.exported.graphs import check_graphs
from budc.runtimes.exported.manifest import MANIFEST, Manifest, read_manifest
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import FileDigests, check_files, file_digests
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import Variant


def variant_name(manifest: Manifest) -> str:
    """Return how a policy calls the variant that an export of this dtype is."""
    return f"onnx-{manifest.dtype}"


def verify_export(
    folder: str | os.PathLike[str], variant: Variant, *, sha256: FileDigests | None = None
) -> Manifest:
    """Check an export folder against the variant of a policy, and its graphs by their rules.

    Args:
        folder: the export.
        variant: lists the sha256 of the manifest and of every file that the manifest lists.
        sha256: how files are hashed; default with a cache.

    Raises:
        WeightsMissing, WeightsMismatch, UnsafeWeights: see `check_files`, `read_manifest` and
            `check_graphs`.
    """
    check_files(folder, variant, sha256=DigestCache() if sha256 is None else sha256)
    manifest = read_manifest(folder)
    listed = {name: digest for name, digest in variant.files.items() if name != MANIFEST}
    if MANIFEST not in variant.files or listed != dict(manifest.files):
        raise WeightsMismatch(
            f"{MANIFEST} in {folder} lists other files than the policy's variant {variant.name}",
            remedy="bind the policy to this export with `budc bind`",
        )
    check_graphs(folder, manifest)
    return manifest


def describe_export(
    folder: str | os.PathLike[str], *, sha256: FileDigests | None = None
) -> tuple[Variant, Manifest]:
    """Return the variant that an export folder is, checked as by `verify_export`, and its manifest.

    Raises:
        WeightsMissing, WeightsMismatch, UnsafeWeights: as for `verify_export`.
    """
    manifest = read_manifest(folder)
    files = {**manifest.files, **file_digests(folder, [MANIFEST])}
    variant = Variant(name=variant_name(manifest), files=files)
    return variant, verify_export(folder, variant, sha256=sha256)
