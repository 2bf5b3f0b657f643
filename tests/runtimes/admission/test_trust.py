"""Whom the runtimes believe: one function for all of them."""

from dataclasses import replace
from typing import Any

import pytest

from budc.runtimes.admission.trust import UnsignedWarning, trusted_document
from budc.schema.artifact import open_artifact, read, seal
from budc.schema.errors import Denied, Unsigned, UntrustedKey
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
            trusted_document(form, denying, allow_unsigned=True)
    assert trusted_document(path, trust, allow_unsigned=False) == document


def test_what_nobody_signed_needs_permission_and_warns(document: PolicyDocument, trust: Trust) -> None:
    unsigned = read(seal(document, None))
    for form in (document, unsigned):
        with pytest.raises(Unsigned):
            trusted_document(form, trust, allow_unsigned=False)
        with pytest.warns(UnsignedWarning, match="nobody vouches"):
            assert trusted_document(form, trust, allow_unsigned=True) == document


def test_what_was_merely_read_is_believed_by_nobody(
    document: PolicyDocument, signer: Any, trust: Trust
) -> None:
    data = seal(document, signer)
    for allow_unsigned in (False, True):
        with pytest.raises(UntrustedKey):
            trusted_document(read(data), None, allow_unsigned)
    assert trusted_document(open_artifact(data, trust), None, allow_unsigned=False) == document
