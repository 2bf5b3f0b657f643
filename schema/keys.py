"""Public keys, which signatures are checked against: ECDSA P-256 with SHA-256, Ed25519 accepted, nothing else.

A `PublicKey` verifies with the algorithm of its own kind; a file cannot choose another one.
"""

import hashlib
import os
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from budc.schema.errors import ArtifactError, ArtifactTooLarge, KeyUnusable
from budc.schema.files import read_limited

_KEY_BYTES = 1 << 16
_BEGIN = b"-----BEGIN "
_FIELD = 2**255 - 19
_EDWARDS_D = -121665 * pow(121666, -1, _FIELD) % _FIELD
"""Prime and curve constant of Ed25519 (RFC 8032)."""


class Message:
    """Bytes that signatures are checked over. ECDSA needs their digest alone, which is taken once for all keys."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sha256 = hashlib.sha256(data).digest()


@dataclass(frozen=True)
class PublicKey:
    """A key that signatures are checked against. Two are equal when their fingerprints are."""

    fingerprint: str
    """"sha256:<hex>" of the SubjectPublicKeyInfo DER."""
    pem: bytes = field(compare=False)
    _key: EllipticCurvePublicKey | Ed25519PublicKey = field(compare=False, repr=False)

    @classmethod
    def from_pem(cls, pem: bytes) -> "PublicKey":
        """Return the key in a SubjectPublicKeyInfo PEM.

        Raises:
            KeyUnusable: not one such PEM, neither ECDSA P-256 nor Ed25519, or an Ed25519 key whose signatures
                prove nothing.
        """
        if pem.count(_BEGIN) > 1:
            raise KeyUnusable(
                f"{pem.count(_BEGIN)} PEM blocks where one public key is expected",
                remedy="keep each key in a file of its own",
            )
        try:
            key = load_pem_public_key(pem)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise KeyUnusable(f"not a public key in PEM form: {error}") from error
        if not isinstance(key, Ed25519PublicKey) and not (
            isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
        ):
            raise KeyUnusable("the public key is neither ECDSA P-256 nor Ed25519")
        if isinstance(key, Ed25519PublicKey):
            _refuse_weak(key.public_bytes_raw())
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return cls(
            fingerprint="sha256:" + hashlib.sha256(der).hexdigest(),
            pem=key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            _key=key,
        )

    @property
    def algorithm(self) -> str:
        """ "ecdsa-p256-sha256" or "ed25519"."""
        return "ed25519" if isinstance(self._key, Ed25519PublicKey) else "ecdsa-p256-sha256"

    def verifies(self, signature: bytes, message: Message) -> bool:
        """Return whether `signature` (DER for ECDSA, 64 bytes for Ed25519) is this key's over `message`."""
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, message.data)
            else:
                self._key.verify(signature, message.sha256, ECDSA(Prehashed(SHA256())))
        except InvalidSignature:
            return False
        return True


def load_public(path: str | os.PathLike[str]) -> PublicKey:
    """Return the public key in the PEM file at `path`. Raises KeyUnusable, naming the path."""
    try:
        return PublicKey.from_pem(read_key(path))
    except KeyUnusable as error:
        raise KeyUnusable(f"{path}: {error}") from error


def _refuse_weak(raw: bytes) -> None:
    """Refuse an Ed25519 key that is a point of small order, for which one signature verifies any message.

    A point's order divides 8 if and only if y (y² - 1) (d y⁴ + 2 y² - 1) = 0: the factors are the orders 4, 1 and 2,
    and 8. A y beyond the field is a second spelling of a key, which would count as another one.
    """
    y = int.from_bytes(raw, "little") % 2**255
    if y >= _FIELD:
        raise KeyUnusable("the Ed25519 key is not written in its one canonical form")
    if y * (y * y - 1) * (_EDWARDS_D * y**4 + 2 * y * y - 1) % _FIELD == 0:
        raise KeyUnusable("the Ed25519 key is a point of small order: anybody can sign for it")


def read_key(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a key's file. Raises KeyUnusable where it cannot be read, or is too large for a key."""
    try:
        return read_limited(path, _KEY_BYTES)
    except ArtifactTooLarge as error:
        raise KeyUnusable(f"{path} is too large to be a key") from error
    except ArtifactError as error:
        raise KeyUnusable(str(error)) from error
