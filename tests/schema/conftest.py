"""A policy document, and the artifact that it is sealed in."""

from collections.abc import Callable

import pytest

from budc.schema.artifact import seal
from budc.schema.policy import PolicyDocument
from budc.schema.signers import Signer

MakeDocument = Callable[..., PolicyDocument]


@pytest.fixture(scope="module")
def document(make_document: MakeDocument) -> PolicyDocument:
    return make_document(not_after="2030-01-01T00:00:00Z", annotations={"note": "für Menschen"})


@pytest.fixture(scope="module")
def sealed(document: PolicyDocument, signer: Signer) -> bytes:
    return seal(document, signer)
