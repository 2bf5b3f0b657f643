"""Any file of 1 MiB is judged in under a second, whatever is in it and however many keys are trusted."""

import contextlib
import time

import pytest
from attack_corpus.forge import TRUSTED
from attack_corpus.worst import MIB, VALUES, structures, worst
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from budc.schema import canonical
from budc.schema.artifact import open_artifact
from budc.schema.errors import ArtifactTooLarge, BudcError
from budc.schema.keys import PublicKey
from budc.schema.trust import Trust

SECONDS = 1.0
"""Of processor time."""
KEYS = 100
"""Trusted keys of each algorithm."""


def public(key: object) -> PublicKey:
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return PublicKey.from_pem(pem)


@pytest.fixture(scope="module")
def crowd() -> Trust:
    """Trust in many keys, the last of them the one that signs."""
    strangers = [
        key
        for seed in range(1, KEYS + 1)
        for key in (
            Ed25519PrivateKey.from_private_bytes(seed.to_bytes(32, "big")),
            derive_private_key(seed, SECP256R1()),
        )
    ]
    return Trust(tuple(public(key) for key in (*strangers, TRUSTED)))


def test_no_file_is_too_large_to_be_read() -> None:
    assert all(len(data) <= MIB for data in worst().values())


@pytest.mark.parametrize("name", list(worst()))
def test_a_file_is_judged_in_under_a_second(crowd: Trust, name: str) -> None:
    data = worst()[name]
    start = time.process_time()
    with contextlib.suppress(BudcError):
        open_artifact(data, crowd)
    taken = time.process_time() - start
    assert taken < SECONDS, f"{taken:.2f} s"


@pytest.mark.parametrize("name", [name for name in structures(0) if name.startswith("too-")])
def test_more_values_than_a_file_may_have_are_refused_before_they_are_parsed(name: str) -> None:
    with pytest.raises(ArtifactTooLarge, match=f"values, the limit is {VALUES}"):
        canonical.parse(structures(MIB)[name])


def test_as_many_values_as_a_file_may_have_are_parsed() -> None:
    most = b"[" + b",".join([b"1"] * VALUES) + b"]"
    assert canonical.parse(most) == [1] * VALUES
    with pytest.raises(ArtifactTooLarge, match=f"has {VALUES + 1} values"):
        canonical.parse(b"[1," + most[1:])
    # Those in strings are none.
    assert canonical.parse(b'"' + b",[{" * VALUES + b'"')
