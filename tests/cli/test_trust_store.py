"""Whom `--trust` believes: keys and a trust file, told apart by what they hold, in place of the user's own file."""

import pytest

from budc.schema.keys import load_public
from budc.schema.signers import generate_key


@pytest.fixture
def stranger(tmp_path):
    """The public key of somebody who signed nothing."""
    path = tmp_path / "stranger.pub"
    path.write_bytes(generate_key().public)
    return path


def test_keys_and_trust_files_are_told_apart_by_content(budc, sealed, public, tmp_path):
    key_named_like_a_trust_file = tmp_path / "key.toml"
    key_named_like_a_trust_file.write_bytes(public.read_bytes())
    trust_file_named_like_a_key = tmp_path / "trust.pem"
    trust_file_named_like_a_key.write_text(f'[[keys]]\nname = "lab"\npem = """{public.read_text()}"""\n')
    for source in (public, key_named_like_a_trust_file, trust_file_named_like_a_key):
        outcome = budc("verify", sealed(), "--trust", source)
        assert outcome.code == 0, outcome.err
        assert outcome.err == ""
    assert "by lab, " in budc("verify", sealed(), "--trust", trust_file_named_like_a_key).out


def test_what_is_neither_is_refused(budc, sealed, tmp_path):
    for content in (b"", b"\x00\xff", b"no key"):
        (tmp_path / "x").write_bytes(content)
        outcome = budc("verify", sealed(), "--trust", tmp_path / "x")
        assert outcome.code == 26
        assert "neither a public key (PEM) nor a trust file (TOML)" in outcome.err
    outcome = budc("verify", sealed(), "--trust", tmp_path / "none")
    assert outcome.code == 26
    assert "--trust: cannot read" in outcome.err
    (tmp_path / "x").write_text("threshold = 2\n")
    assert budc("verify", sealed(), "--trust", tmp_path / "x").code == 20


def test_the_users_trust_file_does_not_count_beside_it(budc, sealed, public, stranger):
    assert budc("trust", "add", public).code == 0
    assert budc("verify", sealed()).code == 0
    assert budc("verify", sealed(), "--trust", stranger).code == 23


def test_a_trust_files_rules_hold_for_keys_beside_it(budc, sealed, public, stranger, tmp_path):
    rules = tmp_path / "rules.toml"
    both = ("--trust", rules, "--trust", public)
    rules.write_text('keys = ["stranger.pub"]\n')
    assert budc("verify", sealed(), *both).code == 0
    rules.write_text('keys = ["stranger.pub"]\n[minimum-revision]\nwan-nano-nfe3 = 2\n')
    assert budc("verify", sealed(revision=1), *both).code == 27
    rules.write_text('[[keys]]\nfile = "stranger.pub"\n[[keys]]\nfile = "release.pub"\nfamilies = ["flux"]\n')
    assert budc("verify", sealed(), *both).code == 23


def test_two_trust_files_are_refused(budc, sealed, public, tmp_path):
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text('keys = ["release.pub"]\n')
    outcome = budc("verify", sealed(), "--trust", tmp_path / "a.toml", "--trust", tmp_path / "b.toml")
    assert outcome.code == 2
    assert "both trust files" in outcome.err


@pytest.mark.parametrize("command", ["verify", "run"])
def test_the_former_name_of_trust_works_with_a_notice(budc, sealed, public, tmp_path, command):
    more = ("--prompt", "x", "--out", tmp_path / "x.png") if command == "run" else ()
    current = budc(command, sealed(), "--trust", public, *more)
    former = budc(command, sealed(), "--key", public, *more)
    notice, _, rest = former.err.partition("\n")
    assert notice.startswith("notice: ")
    assert "--trust" in notice
    assert (former.code, former.out, rest) == (current.code, current.out, current.err)
    # Verified, or refused only for a model that this release does not know, and whose folder nobody names.
    assert former.code == {"verify": 0, "run": 31}[command]
    flags = [line.split()[0] for line in budc(command, "--help").out.splitlines() if line.split()]
    assert "--trust" in flags
    assert "--key" not in flags


def test_the_key_that_signed_is_named(budc, sealed, public, stranger):
    outcome = budc("verify", sealed(), "--trust", stranger, "--trust", public)
    assert load_public(public).fingerprint in outcome.out
    assert load_public(stranger).fingerprint not in outcome.out
