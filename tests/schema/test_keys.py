from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from budc.schema.errors import KeyUnusable
from budc.schema.keys import Message, PublicKey, load_public
from budc.schema.signers import KeyPair, Signer, generate_key, load_signer, public_of

MESSAGE = Message(b"message")


def pems(key: Any) -> KeyPair:
    return KeyPair(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
    )


ED25519 = pems(ed25519.Ed25519PrivateKey.generate())
P384 = pems(ec.generate_private_key(ec.SECP384R1()))
RSA = pems(rsa.generate_private_key(65537, 2048))


def save(folder: Path, data: bytes) -> Path:
    path = folder / "key.pem"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("pair", "algorithm"),
    [(generate_key(), "ecdsa-p256-sha256"), (ED25519, "ed25519")],
    ids=["ecdsa", "ed25519"],
)
def test_a_key_verifies_its_own_signatures_only(tmp_path: Path, pair: KeyPair, algorithm: str) -> None:
    signer = load_signer(save(tmp_path, pair.private))
    key = PublicKey.from_pem(pair.public)
    signature = bytes.fromhex(signer.sign(b"message").signature)
    assert public_of(signer) == key
    assert key.algorithm == algorithm
    assert key.verifies(signature, MESSAGE)
    assert not key.verifies(signature, Message(b"other"))
    assert not key.verifies(signature[:-1], MESSAGE)
    assert not key.verifies(b"", MESSAGE)
    assert not PublicKey.from_pem(generate_key().public).verifies(signature, MESSAGE)


def test_the_fingerprint_is_of_the_der_and_not_of_the_pem_text() -> None:
    pem = generate_key().public
    assert PublicKey.from_pem(pem) == PublicKey.from_pem(b"# a note\n" + pem.replace(b"\n", b"\r\n"))
    assert PublicKey.from_pem(pem) != PublicKey.from_pem(generate_key().public)
    assert PublicKey.from_pem(pem).pem == pem


def test_an_encrypted_key_opens_with_its_passphrase_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = generate_key(b"secret")
    path = save(tmp_path, pair.private)
    asked = []

    def tell(what: str) -> str:
        asked.append(what)
        return "secret"

    assert public_of(load_signer(path, secret=tell)) == PublicKey.from_pem(pair.public)
    assert asked == [f"passphrase of {path}"]
    for wrong in ("other", ""):
        with pytest.raises(KeyUnusable, match="the passphrase is wrong"):
            load_signer(path, secret=lambda what, wrong=wrong: wrong)
    with pytest.raises(KeyUnusable):
        load_signer(path, secret=lambda _: "other")
    monkeypatch.setenv("BUDC_SECRET", "secret")
    assert public_of(load_signer(path)) == PublicKey.from_pem(pair.public)
    monkeypatch.delenv("BUDC_SECRET")
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    with pytest.raises(KeyUnusable, match="passphrase of") as refused:
        load_signer(path)
    assert "BUDC_SECRET" in refused.value.remedy


def test_a_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = generate_key()
    monkeypatch.setenv("RELEASE_KEY", pair.private.decode())
    assert public_of(load_signer("env:RELEASE_KEY")) == PublicKey.from_pem(pair.public)
    monkeypatch.setenv("RELEASE_KEY", "not a key")
    with pytest.raises(KeyUnusable, match="env:RELEASE_KEY"):
        load_signer("env:RELEASE_KEY")
    monkeypatch.setenv("RELEASE_KEY", "\udcff" + pair.private.decode())
    assert public_of(load_signer("env:RELEASE_KEY")) == PublicKey.from_pem(pair.public)
    monkeypatch.setenv("RELEASE_KEY", "\udcff")
    with pytest.raises(KeyUnusable, match="env:RELEASE_KEY"):
        load_signer("env:RELEASE_KEY")
    monkeypatch.delenv("RELEASE_KEY")
    with pytest.raises(KeyUnusable, match="not set"):
        load_signer("env:RELEASE_KEY")


@pytest.mark.parametrize(
    "data",
    [b"", b"not a key", P384.public, RSA.public, ED25519.private, P384.public[:60], b"x" * 70_000],
    ids=["empty", "text", "p384", "rsa", "private", "cut", "large"],
)
def test_public_keys_that_are_not_accepted_are_refused_by_path(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(KeyUnusable, match=r"key\.pem"):
        load_public(save(tmp_path, data))


@pytest.mark.parametrize(
    "data",
    [b"", b"not a key", P384.private, RSA.private, ED25519.public],
    ids=["empty", "text", "p384", "rsa", "public"],
)
def test_private_keys_that_are_not_accepted_are_refused_by_path(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(KeyUnusable, match=r"key\.pem"):
        load_signer(save(tmp_path, data))


P = 2**255 - 19
TORSION = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""The y of two points of order 8; P - TORSION is that of the two others."""


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", [0, 1, P - 1, P, P + 1, P + 2, TORSION, P - TORSION])
def test_ed25519_keys_that_anybody_can_sign_for_are_refused(tmp_path: Path, y: int, sign: int) -> None:
    raw = (y | sign << 255).to_bytes(32, "little")
    key = ed25519.Ed25519PublicKey.from_public_bytes(raw)
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(KeyUnusable, match=r"key\.pem: the Ed25519 key is"):
        load_public(save(tmp_path, pem))


def test_one_signature_would_verify_any_message_under_a_key_of_small_order() -> None:
    """Why such keys are refused: R = the identity and S = 0 is a signature over everything."""
    key = ed25519.Ed25519PublicKey.from_public_bytes((1).to_bytes(32, "little"))
    for message in (b"one", b"another"):
        key.verify((1).to_bytes(32, "little") + bytes(32), message)


def test_a_key_file_with_several_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="2 PEM blocks"):
        load_public(save(tmp_path, ED25519.public + generate_key().public))
    with pytest.raises(KeyUnusable, match="several private keys"):
        load_signer(save(tmp_path, ED25519.private + generate_key().private))
    load_signer(save(tmp_path, generate_key().private + ED25519.public))


def test_missing_key_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="gone"):
        load_public(tmp_path / "gone")
    for name in ("gone", "x" * 300, "nul\0"):
        with pytest.raises(KeyUnusable, match=name[:3]):
            load_signer(tmp_path / name)


def test_a_signer_must_belong_to_the_public_key_that_is_given(tmp_path: Path) -> None:
    pair = generate_key()
    path = save(tmp_path, pair.private)
    load_signer(path, public=PublicKey.from_pem(pair.public))
    with pytest.raises(KeyUnusable, match="does not belong"):
        load_signer(path, public=PublicKey.from_pem(ED25519.public))


def test_a_uri_reaches_the_signer_of_its_scheme(tmp_path: Path) -> None:
    pair = generate_key()
    uri = f"file2:{save(tmp_path, pair.private)}"
    key = PublicKey.from_pem(pair.public)
    assert key.verifies(bytes.fromhex(load_signer(uri, public=key).sign(b"m").signature), Message(b"m"))
    with pytest.raises(KeyUnusable, match="public half"):
        load_signer(uri)
    with pytest.raises(KeyUnusable, match="cannot use the key"):
        load_signer(uri, public=PublicKey.from_pem(generate_key().public))


def test_a_signer_with_an_unreadable_public_half_is_refused() -> None:
    def sign(payload: bytes) -> Any:
        raise AssertionError("not reached")

    signer: Signer = SimpleNamespace(public_key=SimpleNamespace(keyval={"public": "zz"}), sign=sign)
    with pytest.raises(KeyUnusable):
        public_of(signer)
