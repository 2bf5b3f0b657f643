"""Policies in ComfyUI's folder `models/budc`: which there are, and one of them opened by a trusted signature."""

import warnings
from collections.abc import Iterable
from pathlib import Path

from budc.runtimes.admission.trust import TrustedPolicy, UnsignedWarning
from budc.schema.artifact import SUFFIX, open_artifact
from budc.schema.errors import Unsigned, UntrustedKey
from budc.schema.trust import Trust

FOLDER = "budc"
"""Below ComfyUI's folder of models."""

NOBODY = "nobody"
"""The choice of a trust file that trusts no key."""

_TRUST_SUFFIXES = (".pub", ".toml")


def policy_names(files: Iterable[str]) -> list[str]:
    """Return the policies among the files of the folder, sorted."""
    return sorted(name for name in files if name.endswith(SUFFIX))


def trust_names(files: Iterable[str]) -> list[str]:
    """Return public keys and trust files among the files of the folder, sorted; last `NOBODY`."""
    return [*sorted(name for name in files if name.endswith(_TRUST_SUFFIXES)), NOBODY]


def open_policy(path: str, trust_path: str | None, allow_unsigned: bool) -> TrustedPolicy:
    """Return the policy at `path` if a key of the public key or trust file at `trust_path` has signed it.

    Raises:
        TrustError: nobody trusted has signed it, it is denied, or it has expired.
        ArtifactError: it is not a valid policy.
        NotEvaluated: the trust file requires an evaluation, and there is none that meets what is required.
    """
    trust = _trust(trust_path)
    try:
        artifact = open_artifact(path, trust, allow_unsigned=allow_unsigned)
    except Unsigned as error:
        raise Unsigned(
            str(error), remedy="ask its publisher for a signed one, or turn on allow_unsigned"
        ) from error
    except UntrustedKey as error:
        if trust_path is not None:
            raise
        raise UntrustedKey(
            str(error), remedy=f"put its publisher's public key into models/{FOLDER}, and choose it as trust"
        ) from error
    if not artifact.signed:
        warnings.warn(
            f"{artifact.document.name} is not signed: nobody vouches for it", UnsignedWarning, stacklevel=2
        )
    signers = tuple(trust.names.get(key.fingerprint, key.fingerprint) for key in artifact.verified_by)
    return TrustedPolicy(artifact.document, signers)


def _trust(path: str | None) -> Trust:
    if path is None:
        return Trust(keys=())
    return Trust.load(path) if Path(path).suffix == ".toml" else Trust.from_pem(path)
