"""Signers: private keys made, loaded and used to sign, ECDSA P-256 by default, Ed25519 accepted, nothing else.

A signer is any object with the two members of `Signer`, such as those of the package securesystemslib. So a private
key may be in a file, in an environment variable, in AWS, Google or Azure KMS, in Vault or in a PKCS#11 token.
"""

import os
from typing import Any, NamedTuple, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
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

from budc.schema.errors import KeyUnusable
from budc.schema.keys import PublicKey, read_key
from budc.schema.secret import VARIABLE, Secret, ask_secret

MAX_PASSPHRASE = 1023


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
            signer: Signer = AnySigner.from_priv_key_uri(
                text, SSlibKey.from_crypto(load_pem_public_key(public.pem)), secret
            )
        except Exception as error:  # clients of five vendors, each with errors of its own
            raise KeyUnusable(f"cannot use the key {text}: {error}") from error
        return signer
    pem = _variable(rest) if scheme == "env" and not is_file else read_key(text)
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
