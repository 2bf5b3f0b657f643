"""Export folders, checked as if a stranger had made them before a runtime opens them.

    manifest = verify_export(folder, variant)        # against a policy's variant
    variant, manifest = describe_export(folder)      # without a policy

Checked are first the digests that the policy lists, then the manifest, then the graphs
(`budc.runtimes.exported.graphs`). ONNX Runtime opens the files by name later, so these checks do not stop somebody who
can write into the folder in between.
"""

import os

from budc.runtimes.exported.graphs import check_graphs
from budc.runtimes.exported.manifest import MANIFEST, Manifest, read_manifest, variant_name
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import FileDigests, check_files, file_digests
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import Variant


def verify_export(
    folder: str | os.PathLike[str], variant: Variant, *, sha256: FileDigests | None = None
) -> Manifest:
    """Check an export folder against a policy's variant, and its graphs by the rules of `check_graphs`.

    Args:
        folder: the export.
        variant: lists the sha256 of the manifest and of every file that the manifest lists.
        sha256: how files are hashed; default by a new `DigestCache`.

    Raises:
        WeightsMissing, WeightsMismatch: a file is missing, unlisted, or has another sha256 than the variant lists.
        UnsafeWeights: a link out of the folder, a malformed manifest, or a graph that breaks a rule.
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
    """Check an export folder as `verify_export` does, against its own manifest; return its variant and the manifest.

    Raises:
        WeightsMissing, WeightsMismatch, UnsafeWeights: as for `verify_export`.
    """
    manifest = read_manifest(folder)
    files = {**manifest.files, **file_digests(folder, [MANIFEST])}
    variant = Variant(name=variant_name(manifest), files=files)
    return variant, verify_export(folder, variant, sha256=sha256)
