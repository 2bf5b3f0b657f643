"""The policies in the package: what the list vouches for, and everything else that it does not make trusted."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from budc.policies import embedded_policies as package
from budc.policies.embedded_policies import KEY, LIST, SIGNER, embedded_policies, embedded_policy
from budc.policies.profile import embedded_folder, load_profile
from budc.runtimes.admission.trust import trusted_policy
from budc.schema.artifact import add_signature, open_artifact, read, seal
from budc.schema.digest_cache import DigestCache
from budc.schema.discover import attach, load_policy
from budc.schema.errors import (
    ArtifactError,
    Denied,
    NotEvaluated,
    RevisionTooOld,
    SignatureInvalid,
    UntrustedKey,
    UsageError,
)
from budc.schema.model_files import accepted_files
from budc.schema.trust import Trust

ENTRIES = embedded_policies()
ENTRY = ENTRIES[0]
KEY_TEXT = (package.FOLDER / KEY).read_text()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A copy of the package's policies, which a test may attack."""
    target = tmp_path / "policies"
    shutil.copytree(package.FOLDER, target)
    monkeypatch.setattr(package, "FOLDER", target)
    return target


def names(entries):
    return [(entry.model, entry.nfe) for entry in entries]


def write_list(folder, **changes):
    """Write the list with another first entry."""
    entries = [msgspec.structs.replace(ENTRY, **changes), *ENTRIES[1:]]
    (folder / LIST).write_bytes(msgspec.json.encode(entries))


def test_both_families_have_the_documented_budgets():
    assert names(ENTRIES) == [
        (model, nfe) for model in ("flux-nano", "wan2.1-nano") for nfe in (6, 8, 10, 14)
    ]
    assert names(embedded_policies("wan2.1-nano")) == names(ENTRIES)[4:]


def test_the_list_names_every_file_and_no_other():
    assert {path.name for path in package.FOLDER.iterdir()} == {
        LIST,
        KEY,
        *(entry.path.name for entry in ENTRIES),
    }


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.path.name)
def test_each_is_an_aligned_policy_of_its_budget_for_the_weights_beside_it(entry):
    artifact = embedded_policy(entry.model, entry.nfe)
    document = artifact.document
    assert (document.name, document.budget.nfe) == (f"{entry.model}-nfe{entry.nfe}", entry.nfe)
    assert document.search.algorithm == "joint"
    assert document.not_after is None
    assert accepted_files(embedded_folder(load_profile(entry.model)), document.model, DigestCache()).name == (
        "original"
    )
    assert trusted_policy(artifact, None, allow_unsigned=False).document == document


def test_a_single_policy_of_a_model_needs_no_number(folder):
    (folder / LIST).write_bytes(msgspec.json.encode([ENTRY]))
    assert embedded_policy(ENTRY.model).document.budget.nfe == ENTRY.nfe


@pytest.mark.parametrize("place", [0, 100, -2, -1])
def test_a_changed_byte_is_refused(folder, place):
    data = bytearray(ENTRY.path.read_bytes())
    data[place] ^= 1
    ENTRY.path.write_bytes(data)
    with pytest.raises(SignatureInvalid, match="is not the file that came with the package") as refused:
        embedded_policy(ENTRY.model, ENTRY.nfe)
    assert refused.value.remedy == "install the package again"
    assert embedded_policy(ENTRIES[1].model, ENTRIES[1].nfe).verified_by


@pytest.mark.parametrize("change", ["added bytes", "another listed policy", "another's signature"])
def test_another_file_in_its_place_is_refused(folder, change, signer):
    data = {
        "added bytes": ENTRY.path.read_bytes() + b"\n",
        "another listed policy": ENTRIES[1].path.read_bytes(),
        "another's signature": add_signature(read(ENTRY.path), signer),
    }[change]
    ENTRY.path.write_bytes(data)
    with pytest.raises(SignatureInvalid):
        embedded_policy(ENTRY.model, ENTRY.nfe)


def test_a_link_to_the_right_file_is_as_good_and_a_pipe_is_not_waited_for(folder, tmp_path):
    ENTRY.path.rename(tmp_path / "elsewhere")
    ENTRY.path.symlink_to(tmp_path / "elsewhere")
    assert embedded_policy(ENTRY.model, ENTRY.nfe).verified_by
    ENTRY.path.unlink()
    os.mkfifo(ENTRY.path)
    with pytest.raises(ArtifactError, match="not a regular file"):
        embedded_policy(ENTRY.model, ENTRY.nfe)


def test_the_list_alone_does_not_make_a_strangers_policy_trusted(folder, signer):
    data = add_signature(read(ENTRY.path), signer, replace_others=True)
    ENTRY.path.write_bytes(data)
    write_list(folder, sha256=package.sha256(data))
    with pytest.raises(UntrustedKey):
        embedded_policy(ENTRY.model, ENTRY.nfe)


def test_nothing_is_trusted_by_being_found(folder):
    shutil.copy(ENTRY.path, folder / f"{ENTRY.model}-nfe7.budc.json")
    with pytest.raises(UsageError, match="comes with policies of 6, 8, 10 and 14 evaluations"):
        embedded_policy(ENTRY.model, 7)


def test_the_key_makes_nothing_else_trusted(folder, make_document, signer, key_pair, trust):
    """Not even for whoever has its private half, as here."""
    (folder / KEY).write_bytes(key_pair.public)
    ENTRY.path.write_bytes(seal(make_document(), signer))
    with pytest.raises(SignatureInvalid):
        embedded_policy(ENTRY.model, ENTRY.nfe)
    with pytest.raises(UntrustedKey):
        open_artifact(ENTRY.path, Trust(keys=()))
    with pytest.raises(UntrustedKey):
        trusted_policy(read(ENTRY.path), None, allow_unsigned=False)


def test_a_copy_elsewhere_is_signed_by_nobody_who_is_trusted(tmp_path, trust):
    copy = tmp_path / "copy.budc.json"
    shutil.copy(ENTRY.path, copy)
    for believed in (Trust(keys=()), trust):
        with pytest.raises(UntrustedKey):
            open_artifact(copy, believed)
    for source in (copy, ENTRY.path):
        with pytest.raises(UntrustedKey):
            trusted_policy(source, None, allow_unsigned=True)


def test_attached_to_its_model_it_is_one_of_an_untrusted_key(tmp_path, trust):
    model = tmp_path / "model"
    shutil.copytree(embedded_folder(load_profile(ENTRY.model)), model)
    attach(ENTRY.path, model)
    with pytest.raises(UntrustedKey):
        load_policy(model, ENTRY.nfe, trust=trust)


def test_what_the_user_denies_is_refused(tmp_path, trust):
    artifact = embedded_policy(ENTRY.model, ENTRY.nfe, rules=trust)
    denying = replace(trust, denied=frozenset({artifact.policy_id}))
    with pytest.raises(Denied):
        embedded_policy(ENTRY.model, ENTRY.nfe, rules=denying)
    with pytest.raises(Denied):
        trusted_policy(artifact, package.demonstration_trust(denying), allow_unsigned=False)
    demanding = replace(trust, minimum_revisions={artifact.document.name: 2})
    with pytest.raises(RevisionTooOld):
        embedded_policy(ENTRY.model, ENTRY.nfe, rules=demanding)


def test_an_evaluation_that_the_user_requires_is_required(trust, key_pair):
    rules = replace(trust, evaluators=trust.keys).requiring("psnr>=30", "rules")
    with pytest.raises(NotEvaluated):
        embedded_policy(ENTRY.model, ENTRY.nfe, rules=rules)


def test_the_users_trust_decides_where_it_is_given(trust):
    with pytest.raises(UntrustedKey):
        trusted_policy(embedded_policy(ENTRY.model, ENTRY.nfe), trust, allow_unsigned=False)


def test_the_signer_is_named():
    artifact = embedded_policy(ENTRY.model, ENTRY.nfe)
    signers = trusted_policy(artifact, package.demonstration_trust(None), allow_unsigned=False).signers
    assert signers == (SIGNER,)


@pytest.mark.parametrize(
    ("arguments", "message", "remedy"),
    [
        (("flux-nano",), "policies of 6, 8, 10 and 14 evaluations", "nfe=14"),
        (("flux-nano", 7), "nfe=7: flux-nano comes with", "budc compile --model flux-nano --budget 7"),
        (("wan2.1", 8), "no policies come with 'wan2.1'", "budc compile --model wan2.1 --budget 8, or use"),
        (("nope",), "no policies come with 'nope'", "use flux-nano or wan2.1-nano"),
        (("flux-nano", "6"), "nfe: '6' is no whole number", "nfe=10"),
        (("flux-nano", 0), "nfe: 0 is no whole number", "nfe=10"),
        ((Path("flux-nano"), 6), "model: a PosixPath is no str", "budc models"),
    ],
)
def test_wrong_arguments_say_what_is_there(arguments, message, remedy):
    with pytest.raises(UsageError) as refused:
        embedded_policy(*arguments)
    assert message in str(refused.value)
    assert remedy in refused.value.remedy


def test_rules_are_a_trust():
    with pytest.raises(UsageError, match="rules"):
        embedded_policy(ENTRY.model, ENTRY.nfe, rules="release.pub")


@pytest.mark.parametrize("content", [b"", b"{}", b'[{"model": 3}]', b"[", None])
def test_a_damaged_list_is_refused(folder, content):
    (folder / LIST).unlink()
    if content is not None:
        (folder / LIST).write_bytes(content)
    with pytest.raises(ArtifactError) as refused:
        embedded_policy(ENTRY.model, ENTRY.nfe)
    assert LIST in str(refused.value)
