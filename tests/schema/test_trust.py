from collections.abc import Callable
from pathlib import Path

import pytest

from budc.schema.errors import KeyUnusable, RevisionTooOld, TrustError, UntrustedKey
from budc.schema.keys import PublicKey
from budc.schema.policy import PolicyDocument
from budc.schema.signers import KeyPair, generate_key
from budc.schema.trust import Trust

MakeDocument = Callable[..., PolicyDocument]


@pytest.fixture
def folder(tmp_path: Path, key_pair: KeyPair) -> Path:
    (tmp_path / "a.pub").write_bytes(key_pair.public)
    (tmp_path / "b.pub").write_bytes(generate_key().public)
    return tmp_path


def load(folder: Path, text: str) -> Trust:
    (folder / "trust.toml").write_text(text)
    return Trust.load(folder / "trust.toml")


def test_a_trust_file_names_keys_threshold_and_minimum_revisions(folder: Path, key_pair: KeyPair) -> None:
    trust = load(folder, 'keys = ["a.pub", "b.pub"]\nthreshold = 2\n[minimum-revision]\nwan = 3\n')
    assert trust.keys[0] == PublicKey.from_pem(key_pair.public)
    assert (len(trust.keys), trust.threshold, trust.minimum_revisions) == (2, 2, {"wan": 3})


def test_keys_alone_are_enough(folder: Path) -> None:
    assert load(folder, 'keys = ["a.pub"]') == Trust.from_pem(folder / "a.pub")


@pytest.mark.parametrize(
    "text",
    [
        "", "keys = []", 'keys = "a.pub"', "keys = [1]", 'keys = ["a.pub"', 'key = ["a.pub"]',
        'keys = ["a.pub"]\nextra = 1',
        'keys = ["a.pub"]\nthreshold = 0', 'keys = ["a.pub"]\nthreshold = true',
        'keys = ["a.pub"]\nthreshold = "1"', 'keys = ["a.pub"]\nminimum-revision = 3',
        'keys = ["a.pub"]\n[minimum-revision]\nwan = 0', 'keys = ["a.pub"]\n[minimum-revision]\nwan = "2"',
    ],
)  # fmt: skip
def test_a_malformed_trust_file_is_refused_by_path(folder: Path, text: str) -> None:
    with pytest.raises(TrustError, match=r"trust\.toml"):
        load(folder, text)


def test_a_trust_file_that_cannot_be_met_is_refused(folder: Path) -> None:
    with pytest.raises(KeyUnusable, match=r"gone\.pub"):
        load(folder, 'keys = ["gone.pub"]')
    with pytest.raises(KeyUnusable, match="2 signatures required of 1 keys"):
        load(folder, 'keys = ["a.pub"]\nthreshold = 2')
    with pytest.raises(TrustError, match="cannot read"):
        Trust.load(folder / "gone.toml")
    with pytest.raises(TrustError, match="threshold"):
        Trust((), threshold=0)


def test_a_trust_file_says_each_thing_once(folder: Path) -> None:
    with pytest.raises(TrustError, match=r"the key sha256:.* is there twice"):
        load(folder, 'keys = ["a.pub", "./a.pub"]\nthreshold = 2')
    with pytest.raises(TrustError, match="a key named x is there twice"):
        load(folder, '[[keys]]\nname = "x"\nfile = "a.pub"\n[[keys]]\nname = "x"\nfile = "b.pub"\n')


def test_no_families_means_none_and_not_all(folder: Path, make_document: MakeDocument) -> None:
    (key,) = load(folder, 'keys = ["a.pub"]').keys
    assert load(folder, '[[keys]]\nfile = "a.pub"\n').check_family(make_document(), [key]) == (key,)
    with pytest.raises(UntrustedKey, match="not trusted for models of the family wan"):
        load(folder, '[[keys]]\nfile = "a.pub"\nfamilies = []\n').check_family(make_document(), [key])


def test_a_revision_below_the_minimum_is_a_rollback(folder: Path, make_document: MakeDocument) -> None:
    trust = load(folder, 'keys = ["a.pub"]\n[minimum-revision]\nwan-nano-nfe3 = 3\n')
    trust.check_revision(make_document(revision=3))
    trust.check_revision(make_document(name="another", revision=1))
    with pytest.raises(RevisionTooOld, match="revision 2"):
        trust.check_revision(make_document(revision=2))
