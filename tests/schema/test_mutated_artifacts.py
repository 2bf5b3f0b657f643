"""Artifacts with changed bytes: refused, or they mean the same."""

import contextlib
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budc.schema.artifact import open_artifact, read
from budc.schema.bundle import encode_bundle
from budc.schema.envelope import Envelope
from budc.schema.errors import (
    BudcError,
)
from budc.schema.policy import PolicyDocument
from budc.schema.statement import encode_statement
from budc.schema.trust import Trust

NOW = datetime(2027, 1, 1, tzinfo=UTC)


def mutate(data: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for at, length, new in edits:
        start = at % (len(data) + 1)
        data = data[:start] + new + data[start + length :]
    return data


NEW = st.binary(max_size=3) | st.sampled_from([b"A", b"0", b'"', b"}"])
EDITS = st.lists(st.tuples(st.integers(0, 1 << 13), st.integers(0, 3), NEW), min_size=1, max_size=3)
PROPERTY = settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@PROPERTY
@given(edits=EDITS)
def test_a_mutated_artifact_is_refused_or_means_the_same(
    document: PolicyDocument, sealed: bytes, trust: Trust, edits: list[tuple[int, int, bytes]]
) -> None:
    with contextlib.suppress(BudcError):
        opened = open_artifact(mutate(sealed, edits), trust, now=NOW)
        assert opened.document == document
        assert opened.payload == read(sealed).payload


@PROPERTY
@given(edits=EDITS)
def test_a_mutated_payload_in_an_unsigned_artifact_is_refused_or_canonical(
    sealed: bytes, trust: Trust, edits: list[tuple[int, int, bytes]]
) -> None:
    payload = mutate(read(sealed).payload, edits)
    with contextlib.suppress(BudcError):
        opened = open_artifact(encode_bundle(Envelope(payload)), trust, allow_unsigned=True, now=NOW)
        assert encode_statement(opened.document) == payload
