from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from budc.schema.envelope import (
    MAX_SIGNATURES,
    MAX_VERIFICATIONS,
    MAX_VERIFIED_BYTES,
    PAYLOAD_TYPE,
    Envelope,
    Signature,
    check_type,
    pae,
    sign,
    verify,
)
from budc.schema.errors import KeyUnusable, SignatureInvalid, Unsigned, UntrustedKey, WrongPayloadType
from budc.schema.keys import Message, PublicKey
from budc.schema.signers import KeyPair, Signer, generate_key, load_signer
from budc.schema.trust import Trust

PAYLOAD = b'{"a":1}'


@pytest.fixture
def key(trust: Trust) -> PublicKey:
    return trust.keys[0]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> tuple[Signer, PublicKey]:
    pair = generate_key()
    path = tmp_path_factory.mktemp("other") / "key"
    path.write_bytes(pair.private)
    return load_signer(path), PublicKey.from_pem(pair.public)


def test_pae_bytes_are_those_of_the_dsse_specification() -> None:
    # The example of the DSSE protocol document.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


def test_pae_bytes_of_a_payload_of_ours() -> None:
    assert pae(PAYLOAD_TYPE, PAYLOAD) == b'DSSEv1 28 application/vnd.in-toto+json 7 {"a":1}'
    assert pae("é", b"\x00\xff") == b"DSSEv1 2 \xc3\xa9 2 \x00\xff"


def test_a_signed_envelope_verifies(signer: Signer, key: PublicKey) -> None:
    envelope = sign(PAYLOAD, signer)
    assert envelope.signatures[0].keyid == key.fingerprint
    assert verify(envelope, [key]) == (key,)


def test_key_ids_decide_nothing_about_acceptance(
    signer: Signer, key: PublicKey, other: tuple[Signer, PublicKey]
) -> None:
    signature = sign(PAYLOAD, signer).signatures[0]
    for keyid in ("", "sha256:0", other[1].fingerprint):
        assert verify(Envelope(PAYLOAD, signatures=(replace(signature, keyid=keyid),)), [other[1], key]) == (
            key,
        )


def test_changed_payload_is_tampering_when_a_trusted_key_is_named(signer: Signer, key: PublicKey) -> None:
    envelope = replace(sign(PAYLOAD, signer), payload=b'{"a":2}')
    with pytest.raises(SignatureInvalid, match=key.fingerprint):
        verify(envelope, [key])


def test_the_hint_alone_names_the_key_too(signer: Signer, key: PublicKey) -> None:
    value = sign(PAYLOAD, signer).signatures[0].value
    envelope = Envelope(b'{"a":2}', signatures=(Signature(value),))
    with pytest.raises(SignatureInvalid):
        verify(envelope, [key], hint=key.fingerprint)
    with pytest.raises(UntrustedKey, match="does not name"):
        verify(envelope, [key])


def test_a_foreign_key_is_untrusted_whatever_it_claims(
    key: PublicKey, other: tuple[Signer, PublicKey]
) -> None:
    envelope = sign(PAYLOAD, other[0])
    with pytest.raises(UntrustedKey, match=other[1].fingerprint):
        verify(envelope, [key])
    with pytest.raises(UntrustedKey, match="no trusted key"):
        verify(envelope, [])
    claimed = Envelope(PAYLOAD, signatures=(replace(envelope.signatures[0], keyid=key.fingerprint),))
    with pytest.raises(SignatureInvalid):
        verify(claimed, [key])


def test_no_signature_is_unsigned(key: PublicKey) -> None:
    with pytest.raises(Unsigned):
        verify(Envelope(PAYLOAD), [key])


def test_a_good_signature_over_another_type_is_refused(signer: Signer, key: PublicKey) -> None:
    envelope = sign(PAYLOAD, signer, payload_type="text/plain")
    with pytest.raises(WrongPayloadType, match="text/plain"):
        verify(envelope, [key])
    with pytest.raises(WrongPayloadType):
        check_type(envelope)


def test_the_type_is_part_of_what_is_signed(signer: Signer, key: PublicKey) -> None:
    envelope = replace(sign(PAYLOAD, signer, payload_type="text/plain"), payload_type=PAYLOAD_TYPE)
    with pytest.raises(SignatureInvalid):
        verify(envelope, [key])


def test_a_threshold_counts_distinct_keys(
    signer: Signer, key: PublicKey, other: tuple[Signer, PublicKey]
) -> None:
    twice = Envelope(PAYLOAD, signatures=sign(PAYLOAD, signer).signatures + sign(PAYLOAD, signer).signatures)
    with pytest.raises(UntrustedKey, match="1 trusted key"):
        verify(twice, [key, key, other[1]], threshold=2)
    both = Envelope(PAYLOAD, signatures=sign(PAYLOAD, signer).signatures + sign(PAYLOAD, other[0]).signatures)
    assert verify(both, [key, other[1]], threshold=2) == (key, other[1])
    with pytest.raises(ValueError, match="threshold"):
        verify(Envelope(PAYLOAD), [key], threshold=0)


def test_garbage_beside_a_good_signature_does_no_harm(signer: Signer, key: PublicKey) -> None:
    garbage = (Signature(b""), Signature(b"\x30\x06\x02\x01\x00\x02\x01\x00", key.fingerprint))
    envelope = Envelope(PAYLOAD, signatures=garbage + sign(PAYLOAD, signer).signatures)
    assert verify(envelope, [key]) == (key,)


@pytest.fixture
def verifications(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The signatures that were checked, one entry a check."""
    checked: list[bytes] = []
    verifies = PublicKey.verifies

    def counted(self: PublicKey, signature: bytes, message: Message) -> bool:
        checked.append(signature)
        return verifies(self, signature, message)

    monkeypatch.setattr(PublicKey, "verifies", counted)
    return checked


@pytest.fixture(scope="module")
def strangers() -> list[PublicKey]:
    return [PublicKey.from_pem(generate_key().public) for _ in range(MAX_VERIFICATIONS)]


def test_a_signature_that_names_its_key_is_checked_once_however_many_keys_are_trusted(
    signer: Signer, key: PublicKey, strangers: list[PublicKey], verifications: list[bytes]
) -> None:
    envelope = sign(PAYLOAD, signer)
    verifications.clear()
    assert verify(envelope, [*strangers, key]) == (key,)
    assert len(verifications) == 1
    unnamed = Envelope(PAYLOAD, signatures=(replace(envelope.signatures[0], keyid=""),))
    assert verify(unnamed, [*strangers, key], hint=key.fingerprint) == (key,)
    assert len(verifications) == 2


def test_signatures_that_name_no_key_are_tried_with_all_up_to_a_bound(
    signer: Signer, key: PublicKey, strangers: list[PublicKey], verifications: list[bytes]
) -> None:
    unnamed = replace(sign(PAYLOAD, signer).signatures[0], keyid="")
    envelope = Envelope(PAYLOAD, signatures=(unnamed,))
    verifications.clear()
    assert verify(envelope, [*strangers[1:], key]) == (key,)
    assert len(verifications) == MAX_VERIFICATIONS
    with pytest.raises(
        UntrustedKey, match=r"0 trusted key.*1 are required; after 256 of 1 x 257 pairs"
    ) as refusal:
        verify(envelope, [*strangers, key])
    assert "key ids" in refusal.value.remedy


def test_of_a_large_payload_fewer_pairs_are_tried_but_every_one_that_is_named(
    signer: Signer, key: PublicKey, strangers: list[PublicKey], verifications: list[bytes]
) -> None:
    large = b"x" * (MAX_VERIFIED_BYTES // 20)
    unnamed = Envelope(large, signatures=(replace(sign(large, signer).signatures[0], keyid=""),))
    verifications.clear()
    with pytest.raises(
        UntrustedKey, match=r"after 19 of 1 x 31 pairs of signature and key no more are tried"
    ):
        verify(unnamed, [*strangers[:30], key])
    assert len(verifications) == 19
    assert verify(unnamed, [*strangers[:18], key]) == (key,)
    named = [Signature(b"x", stranger.fingerprint) for stranger in strangers[: MAX_SIGNATURES - 1]]
    full = replace(unnamed, signatures=(*named, *unnamed.signatures))
    assert verify(full, [*strangers[: MAX_SIGNATURES - 1], key], hint=key.fingerprint) == (key,)


def test_a_file_full_of_signatures_costs_a_bounded_number_of_verifications(
    key: PublicKey, strangers: list[PublicKey], verifications: list[bytes]
) -> None:
    claimed = [*strangers[: MAX_SIGNATURES - 1], key]
    envelope = Envelope(
        PAYLOAD, signatures=tuple(Signature(bytes([n]) * 64, k.fingerprint) for n, k in enumerate(claimed))
    )
    with pytest.raises(SignatureInvalid, match=claimed[0].fingerprint):
        verify(envelope, [*strangers, key], hint=strangers[-1].fingerprint)
    assert len(verifications) == MAX_VERIFICATIONS


def test_a_signature_counts_for_one_key(
    signer: Signer, key: PublicKey, other: tuple[Signer, PublicKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    envelope = sign(PAYLOAD, signer)
    monkeypatch.setattr(PublicKey, "verifies", lambda *_: True)
    with pytest.raises(UntrustedKey, match="1 trusted key"):
        verify(envelope, [key, other[1]], threshold=2)


@pytest.mark.parametrize("result", ["zz", "", "00" * 70], ids=["not-hex", "empty", "wrong"])
def test_a_signer_that_does_not_sign_with_its_key_is_noticed(key_pair: KeyPair, result: str) -> None:
    public = SimpleNamespace(keyval={"public": key_pair.public.decode()})
    broken: Any = SimpleNamespace(public_key=public, sign=lambda _: SimpleNamespace(signature=result))
    with pytest.raises(KeyUnusable):
        sign(PAYLOAD, broken)


def test_a_signer_that_fails_is_an_unusable_key(key_pair: KeyPair) -> None:
    def fail(_payload: bytes) -> Any:
        raise ConnectionError("the key service is away")

    public = SimpleNamespace(keyval={"public": key_pair.public.decode()})
    broken: Any = SimpleNamespace(public_key=public, sign=fail)
    with pytest.raises(KeyUnusable, match="the key service is away"):
        sign(PAYLOAD, broken)
