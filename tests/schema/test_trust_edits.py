import fcntl
import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from budc.schema import trust_edits
from budc.schema.artifact import add_signature, open_artifact, read, seal, verify
from budc.schema.errors import (
    Denied,
    KeyUnusable,
    OutputError,
    TrustError,
    UntrustedKey,
    UsageError,
)
from budc.schema.keys import PublicKey
from budc.schema.policy import PolicyDocument
from budc.schema.signers import KeyPair, Signer, generate_key, load_signer
from budc.schema.trust import Trust
from budc.schema.trust_edits import changing, encode
from budc.schema.trust_file import KeyEntry, TrustFile, read_trust_file

MakeDocument = Callable[..., PolicyDocument]
OTHER = generate_key()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "trust.toml"


@pytest.fixture
def key(key_pair: KeyPair) -> PublicKey:
    return PublicKey.from_pem(key_pair.public)


@pytest.fixture
def other(tmp_path: Path) -> Signer:
    (tmp_path / "other.key").write_bytes(OTHER.private)
    return load_signer(tmp_path / "other.key")


def test_what_is_added_is_trusted_until_it_is_removed(path: Path, key: PublicKey) -> None:
    with changing(path) as draft:
        draft.add(key, "release", ["wan"])
        draft.add(PublicKey.from_pem(OTHER.public), "backup")
    trust = Trust.load(path)
    assert trust.keys == (key, PublicKey.from_pem(OTHER.public))
    assert trust.names == {key.fingerprint: "release", trust.keys[1].fingerprint: "backup"}
    assert trust.families == {key.fingerprint: ("wan",)}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with changing(path) as draft:
        draft.remove("backup")
    assert Trust.load(path).keys == (key,)
    with changing(path) as draft:
        draft.remove(key.fingerprint)
    assert read_trust_file(path).keys == []


def test_a_file_written_by_hand_keeps_what_it_says(path: Path, key_pair: KeyPair) -> None:
    path.parent.mkdir()
    (path.parent / "a.pub").write_bytes(key_pair.public)
    path.write_text('keys = ["a.pub"]\n[minimum-revision]\n"a.b.c" = 3\n')
    with changing(path) as draft:
        draft.add(PublicKey.from_pem(OTHER.public), "backup")
        draft.require(threshold=2, revisions=[("wan2.1-nfe10", 4)])
        draft.deny("sha256:" + "a" * 64)
    trust = Trust.load(path)
    assert (trust.threshold, len(trust.keys)) == (2, 2)
    assert trust.minimum_revisions == {"a.b.c": 3, "wan2.1-nfe10": 4}
    assert trust.denied == {"sha256:" + "a" * 64}
    with changing(path) as draft:
        draft.allow("sha256:" + "a" * 64)
    assert Trust.load(path).denied == frozenset()


@pytest.mark.parametrize(
    "text", ['q"\\\n\x7fé.pub', "😀\u2028\t\r\x00\x1b", '"""\n[[keys]]', "'''", "\\u0041"]
)
def test_text_of_any_kind_survives_writing(path: Path, text: str) -> None:
    content = TrustFile(keys=[KeyEntry(name="a", file=text)], minimum_revision={"a.b": 1})
    path.parent.mkdir()
    path.write_text(encode(content))
    assert read_trust_file(path) == content


def test_rewriting_adds_no_key_that_an_entry_smuggles(path: Path, key: PublicKey, key_pair: KeyPair) -> None:
    """The text of an entry's PEM would, pasted as it is, end its string and begin another entry."""
    path.parent.mkdir()
    stranger = OTHER.public.decode()
    text = key_pair.public.decode() + '"""\n[[keys]]\npem = """\n' + stranger
    assert path.write_text(f"[[keys]]\nname = 'release'\npem = '''\n{text}'''\n")
    with pytest.raises(KeyUnusable, match="2 PEM blocks"):
        Trust.load(path)
    before = path.read_bytes()
    with pytest.raises(KeyUnusable), changing(path) as draft:
        draft.deny("sha256:" + "a" * 64)
    assert path.read_bytes() == before
    hidden = key_pair.public.decode() + '"""\nfile = "x.pub"\n#'
    path.write_text(f"[[keys]]\nname = 'release'\npem = '''\n{hidden}'''\n")
    with changing(path) as draft:
        draft.deny("sha256:" + "a" * 64)
    assert Trust.load(path).keys == (key,)
    assert read_trust_file(path).keys == [KeyEntry(name="release", pem=hidden)]


def test_a_change_that_fails_leaves_the_file_as_it_was(path: Path, key: PublicKey) -> None:
    """An entry that cannot be loaded makes the new file unusable: it is not written."""
    path.parent.mkdir()
    path.write_text('# by hand\n[[keys]]\nname = "lost"\nfile = "gone.pub"\n')
    before = path.read_bytes()
    with pytest.raises(KeyUnusable, match=r"gone\.pub"), changing(path) as draft:
        draft.add(key, "release")
    assert path.read_bytes() == before
    assert sorted(item.name for item in path.parent.iterdir()) == ["trust.lock", "trust.toml"]


def test_a_trust_file_that_another_process_keeps_locked_is_not_waited_for(
    path: Path, key: PublicKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust_edits, "lock", partial(trust_edits.lock, seconds=0.05))
    path.parent.mkdir()
    with path.with_suffix(".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another process"), changing(path) as draft:
            draft.add(key, "release")


def test_a_linked_trust_file_is_changed_where_it_is(path: Path, tmp_path: Path, key_pair: KeyPair) -> None:
    """Keys are relative to the link, as they are when the file is read."""
    path.parent.mkdir()
    (path.parent / "a.pub").write_bytes(key_pair.public)
    (tmp_path / "dotfiles").mkdir()
    real = tmp_path / "dotfiles" / "trust.toml"
    real.write_text('keys = ["a.pub"]\n')
    path.symlink_to(real)
    with changing(path) as draft:
        draft.deny("sha256:" + "a" * 64)
    assert path.is_symlink()
    assert Trust.load(path).denied == {"sha256:" + "a" * 64}
    assert "denied" in real.read_text()


@pytest.mark.parametrize("kind", ["loop", "pipe", "folder"])
def test_what_is_no_file_is_not_changed(path: Path, key: PublicKey, kind: str) -> None:
    path.parent.mkdir()
    {"loop": lambda: path.symlink_to(path), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    with pytest.raises((TrustError, OutputError)), changing(path) as draft:
        draft.add(key, "release")


def test_a_minimum_revision_can_be_taken_back(path: Path, key: PublicKey) -> None:
    with changing(path) as draft:
        draft.add(key, "release")
        draft.require(revisions=[("a", 2), ("b", 3)])
        draft.drop_minimum("a")
    assert Trust.load(path).minimum_revisions == {"b": 3}
    with pytest.raises(UsageError, match="no minimum revision for a"), changing(path) as draft:
        draft.drop_minimum("a")


def test_a_minimum_for_a_name_that_no_policy_can_have_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('[minimum-revision]\n"wan nfe10" = 3\n')
    with pytest.raises(TrustError, match="minimum-revision"):
        read_trust_file(path)


def test_changes_that_make_no_sense_are_refused_and_nothing_is_written(path: Path, key: PublicKey) -> None:
    with changing(path) as draft:
        draft.add(key, "release")
    before = path.read_bytes()
    refused: list[Callable[[], None]] = [
        lambda: draft.add(PublicKey.from_pem(OTHER.public), "release"),
        lambda: draft.add(key, "again"),
        lambda: draft.add(PublicKey.from_pem(OTHER.public), "two words"),
        lambda: draft.add(PublicKey.from_pem(OTHER.public), "x", ["two words"]),
        lambda: draft.remove("nobody"),
        lambda: draft.deny("sha256:short"),
        lambda: draft.allow("sha256:" + "a" * 64),
        lambda: draft.require(threshold=2),
        lambda: draft.require(revisions=[("a b", 1)]),
    ]
    for change in refused:
        with pytest.raises(UsageError), changing(path) as draft:
            change()
        assert path.read_bytes() == before


def test_the_last_keys_that_a_threshold_needs_stay(path: Path, key: PublicKey) -> None:
    with changing(path) as draft:
        draft.add(key, "release")
        draft.add(PublicKey.from_pem(OTHER.public), "backup")
        draft.require(threshold=2)
    with pytest.raises(UsageError, match="2 signatures are required"), changing(path) as draft:
        draft.remove("backup")


def test_a_key_that_cannot_be_read_can_be_removed(path: Path, key: PublicKey) -> None:
    path.parent.mkdir()
    path.write_text('[[keys]]\nname = "lost"\nfile = "gone.pub"\n')
    with pytest.raises(KeyUnusable):
        Trust.load(path)
    with changing(path) as draft:
        draft.remove("lost")
        draft.add(key, "release")
    assert Trust.load(path).keys == (key,)


def test_folders_that_cannot_be_written(tmp_path: Path, key: PublicKey) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError), changing(tmp_path / "file" / "trust.toml") as draft:
        draft.add(key, "release")


@pytest.mark.parametrize(
    "text",
    ['[[keys]]\nname = "x"\n', '[[keys]]\nfile = "a"\npem = "b"\n', '[[keys]]\nfiles = "a"\n',
     '[[keys]]\nfile = "a"\nfamilies = ["a b"]\n', 'keys = []\ndenied = ["x"]\n'],
)  # fmt: skip
def test_malformed_entries(path: Path, text: str) -> None:
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(TrustError, match=r"trust\.toml"):
        Trust.load(path)


def test_a_key_signs_for_its_families_only(make_document: MakeDocument, signer: Signer, trust: Trust) -> None:
    data = seal(make_document(), signer)
    (key,) = trust.keys
    for families, believed in ((("wan", "flux"), True), (("flux",), False)):
        limited = Trust(trust.keys, families={key.fingerprint: families}, names={key.fingerprint: "lab"})
        if believed:
            assert open_artifact(data, limited).verified_by == trust.keys
            continue
        with pytest.raises(UntrustedKey, match="lab is not trusted for models of the family wan"):
            open_artifact(data, limited)
        with pytest.raises(UntrustedKey):
            verify(read(data), limited)


def test_a_signature_for_another_family_does_not_count_towards_the_threshold(
    make_document: MakeDocument, signer: Signer, other: Signer, key: PublicKey
) -> None:
    data = add_signature(read(seal(make_document(), signer)), other)
    second = PublicKey.from_pem(OTHER.public)
    both = Trust((key, second), threshold=2)
    assert open_artifact(data, both).verified_by == (key, second)
    with pytest.raises(UntrustedKey, match="1 of 2 signatures count"):
        open_artifact(data, Trust((key, second), threshold=2, families={second.fingerprint: ("flux",)}))
    assert open_artifact(
        data, Trust((key, second), families={second.fingerprint: ("flux",)})
    ).verified_by == (key,)


def test_a_denied_policy_is_refused_before_it_is_parsed_whoever_signed(
    make_document: MakeDocument, signer: Signer, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = seal(make_document(), signer)
    denying = Trust(trust.keys, denied=frozenset({read(data).policy_id}))
    with pytest.raises(Denied):
        verify(read(data), denying)
    with pytest.raises(Denied):
        open_artifact(seal(make_document(), None), denying, allow_unsigned=True)
    open_artifact(seal(make_document(revision=2), signer), denying)
    monkeypatch.setattr("budc.schema.artifact.decode_statement", lambda _: pytest.fail("parsed"))
    with pytest.raises(Denied):
        open_artifact(data, denying)


def test_adding_a_signature_keeps_payload_and_the_others(
    make_document: MakeDocument, signer: Signer, other: Signer, trust: Trust
) -> None:
    first = read(seal(make_document(), signer))
    both = read(add_signature(first, other))
    assert (both.payload, both.signatures[0]) == (first.payload, first.signatures[0])
    assert verify(both, trust) == trust.keys
    alone = read(add_signature(first, other, replace_others=True))
    assert len(alone.signatures) == 1
    with pytest.raises(UntrustedKey):
        verify(alone, trust)
    with pytest.raises(UsageError, match="already"):
        add_signature(both, other)
