"""Keys: making, loading and using them. ECDSA P-256 with SHA-256 by default, Ed25519 accepted, nothing else.

A `PublicKey` verifies with the algorithm of its own kind; a file cannot choose another one. A signer is any object
with the two members of `Signer`, such as those of the package securesystemslib. So a private key may be in a file,
in an environment variable, in AWS, Google or Azure KMS, in Vault or in a PKCS#11 token.
"""

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from budc.schema.errors import ArtifactError, ArtifactTooLarge, KeyUnusable
from budc.schema.files import read_limited
from budc.schema.secret import VARIABLE, Secret, ask_secret

_KEY_BYTES = 1 << 16
MAX_PASSPHRASE = 1023
_BEGIN = b"-----BEGIN "
_FIELD = 2**255 - 19
_EDWARDS_D = -121665 * pow(121666, -1, _FIELD) % _FIELD
"""Prime and curve constant of Ed25519 (RFC 8032)."""


class Signer(Protocol):
    """What signs: `securesystemslib.signer.Signer`, or anything with these two members."""

    @property
    def public_key(self) -> Any:
        """The public half; its `keyval["public"]` is a PEM, or the raw key in hex for Ed25519."""

    def sign(self, payload: bytes) -> Any:
        """Return an object whose `signature` is the signature over `payload` in hex."""


class KeyPair(NamedTuple):
    """A new key, both halves as PEM: PKCS #8 and SubjectPublicKeyInfo."""

    private: bytes
    public: bytes


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


def generate_key(passphrase: bytes | None = None) -> KeyPair:
    """Return a new ECDSA P-256 key, its private half encrypted unless `passphrase` is None.

    Raises:
        KeyUnusable: the passphrase is empty, or over `MAX_PASSPHRASE` bytes, the most that a PEM can be read with.
    """
    if passphrase is not None and not 1 <= len(passphrase) <= MAX_PASSPHRASE:
        raise KeyUnusable(
            f"a passphrase of {len(passphrase)} bytes, expected 1 to {MAX_PASSPHRASE}",
            remedy="choose another one; without --encrypt the key is not protected",
        )
    key = generate_private_key(SECP256R1())
    protection: KeySerializationEncryption = (
        NoEncryption() if passphrase is None else BestAvailableEncryption(passphrase)
    )
    return KeyPair(
        private=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, protection),
        public=key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


def load_public(path: str | os.PathLike[str]) -> PublicKey:
    """Return the public key in the PEM file at `path`. Raises KeyUnusable, naming the path."""
    try:
        return PublicKey.from_pem(_read(path))
    except KeyUnusable as error:
        raise KeyUnusable(f"{path}: {error}") from error


def load_signer(
    source: str | os.PathLike[str],
    *,
    public: PublicKey | None = None,
    secret: Secret = ask_secret,
) -> Signer:
    """Return the signer at a path, in an environment variable or at a key URI.

    Args:
        source: path of a PKCS #8 PEM; "env:NAME", a variable that holds such a PEM; or a URI that
            securesystemslib knows ("awskms:…", "gcpkms:…", "azurekms:…", "hv:…", "hsm:…"). An existing file of
            that name wins.
        public: the public half; needed for a URI, checked against a PEM.
        secret: asked for the passphrase of an encrypted PEM or the PIN of a token, and only then.

    Raises:
        KeyUnusable: the key cannot be read, is not ECDSA P-256 or Ed25519, or is not the one of `public`.
    """
    # Imported here: it loads every KMS client that is installed, and verifying needs none of them.
    from securesystemslib.signer import SIGNER_FOR_URI_SCHEME, CryptoSigner, SSlibKey
    from securesystemslib.signer import Signer as AnySigner

    text = os.fspath(source)
    scheme, _, rest = text.partition(":")
    is_file = os.path.exists(text)
    if scheme in SIGNER_FOR_URI_SCHEME and not is_file:
        if public is None:
            raise KeyUnusable(
                f"{scheme} keys need their public half",
                remedy="give the public key's file too, with --public",
            )
        try:
            signer: Signer = AnySigner.from_priv_key_uri(text, SSlibKey.from_crypto(public._key), secret)
        except Exception as error:  # clients of five vendors, each with errors of its own
            raise KeyUnusable(f"cannot use the key {text}: {error}") from error
        return signer
    pem = _variable(rest) if scheme == "env" and not is_file else _read(text)
    key = _private(pem, text, secret)
    if not isinstance(key, Ed25519PrivateKey) and not (
        isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    ):
        raise KeyUnusable(f"{text}: the private key is neither ECDSA P-256 nor Ed25519")
    signer = CryptoSigner(key)
    if public is not None and public_of(signer) != public:
        raise KeyUnusable(f"{text}: the private key does not belong to {public.fingerprint}")
    return signer


def public_of(signer: Signer) -> PublicKey:
    """Return the public half of a signer's key. Raises KeyUnusable where it is of a kind not accepted."""
    value = str(signer.public_key.keyval["public"])
    if value.startswith("-----BEGIN"):
        return PublicKey.from_pem(value.encode())
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(value))
    except ValueError as error:
        raise KeyUnusable("the signer's public key is neither a PEM nor an Ed25519 key in hex") from error
    return PublicKey.from_pem(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


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


def _private(pem: bytes, where: str, secret: Secret) -> PrivateKeyTypes:
    if pem.count(b"PRIVATE KEY-----") > 2:
        raise KeyUnusable(f"{where}: several private keys", remedy="keep each key in a file of its own")
    try:
        try:
            return load_pem_private_key(pem, None)
        except TypeError:  # raised where the key is encrypted
            return _decrypted(pem, os.fsencode(secret(f"passphrase of {where}")), where)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"{where}: not a private key that can be read: {error}") from error


def _decrypted(pem: bytes, passphrase: bytes, where: str) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(pem, passphrase)
    except (ValueError, TypeError) as error:
        # An empty one is a TypeError.
        if "password" not in str(error).lower():
            raise
        raise KeyUnusable(
            f"{where}: the passphrase is wrong",
            remedy=f"give the one that the key was made with, or set {VARIABLE}",
        ) from error


def _variable(name: str) -> bytes:
    value = os.environ.get(name, "")
    if not value:
        raise KeyUnusable(f"env:{name}: the environment variable is not set", remedy="export the PEM in it")
    return os.fsencode(value)


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_limited(path, _KEY_BYTES)
    except ArtifactTooLarge as error:
        raise KeyUnusable(f"{path} is too large to be a key") from error
    except ArtifactError as error:
        raise KeyUnusable(str(error)) from error
