"""Which policies may run: one function for all runtimes."""

from dataclasses import replace
from typing import Any

import pytest

from budc.runtimes.admission.trust import TrustedPolicy, UnsignedWarning, trusted_policy
from budc.schema.artifact import open_artifact, read, seal
from budc.schema.attestation import seal_evaluation
from budc.schema.errors import Denied, NotEvaluated, Unsigned, UntrustedKey
from budc.schema.policy import PolicyDocument
from budc.schema.trust import Trust


@pytest.fixture
def document(make_document: Any) -> PolicyDocument:
    return make_document()


def test_a_denied_policy_is_refused_in_whatever_form_it_comes(
    document: PolicyDocument, signer: Any, trust: Trust, tmp_path: Any
) -> None:
    path = tmp_path / "policy.budc.json"
    path.write_bytes(seal(document, signer))
    denying = replace(trust, denied=frozenset({read(path).policy_id}))
    for form in (path, read(path), open_artifact(path, trust), document):
        with pytest.raises(Denied):
            trusted_policy(form, denying, allow_unsigned=True)
    assert trusted_policy(path, trust, allow_unsigned=False).document == document


def test_a_required_evaluation_is_required_of_every_form(
    document: PolicyDocument, signer: Any, trust: Trust, make_evaluation: Any, tmp_path: Any
) -> None:
    path = tmp_path / "policy.budc.json"
    path.write_bytes(seal(document, signer))
    unsigned = tmp_path / "unsigned.budc.json"
    unsigned.write_bytes(seal(document, None))
    requiring = replace(trust, evaluators=trust.keys).requiring("psnr>=30,n>=4")
    opened = open_artifact(path, trust)
    forms = (path, opened, unsigned, replace(read(unsigned), path=unsigned))
    for form in (*forms, document):
        with pytest.raises(NotEvaluated):
            trusted_policy(form, requiring, allow_unsigned=True)
    for name in ("policy", "unsigned"):
        evaluation = seal_evaluation(make_evaluation(document), signer)
        (tmp_path / f"{name}.evaluation.json").write_bytes(evaluation)
    for form in forms[:2]:
        assert trusted_policy(form, requiring, allow_unsigned=False).document == document
    for form in forms[2:]:
        with pytest.warns(UnsignedWarning):
            assert trusted_policy(form, requiring, allow_unsigned=True).document == document


def test_what_nobody_signed_needs_permission_and_warns(document: PolicyDocument, trust: Trust) -> None:
    unsigned = read(seal(document, None))
    for form in (document, unsigned):
        with pytest.raises(Unsigned) as refused:
            trusted_policy(form, trust, allow_unsigned=False)
        assert "allow_unsigned=True" in refused.value.remedy
        with pytest.warns(UnsignedWarning, match="nobody vouches"):
            assert trusted_policy(form, trust, allow_unsigned=True) == TrustedPolicy(document)


def test_what_was_merely_read_is_not_verified(document: PolicyDocument, signer: Any, trust: Trust) -> None:
    data = seal(document, signer)
    for allow_unsigned in (False, True):
        with pytest.raises(UntrustedKey):
            trusted_policy(read(data), None, allow_unsigned)
    assert trusted_policy(open_artifact(data, trust), None, allow_unsigned=False).document == document


def test_a_signed_policy_without_trust_names_the_argument(document: PolicyDocument, signer: Any) -> None:
    artifact = read(seal(document, signer))
    with pytest.raises(UntrustedKey) as refused:
        trusted_policy(artifact, None, allow_unsigned=False)
    assert "pass trust=" in refused.value.remedy


def test_signers_are_named_by_trust_by_file_or_by_fingerprint(
    document: PolicyDocument, signer: Any, trust: Trust, tmp_path: Any
) -> None:
    artifact = read(seal(document, signer))
    (key,) = trust.keys
    named = replace(trust, names={key.fingerprint: "release"})
    assert trusted_policy(artifact, named, allow_unsigned=False).signers == ("release",)
    (tmp_path / "publisher.pub").write_bytes(key.pem)
    assert trusted_policy(artifact, tmp_path / "publisher.pub", allow_unsigned=False).signers == (
        "publisher.pub",
    )
    (shortened,) = trusted_policy(artifact, trust, allow_unsigned=False).signers
    assert key.fingerprint.startswith(shortened.removesuffix("…"))
