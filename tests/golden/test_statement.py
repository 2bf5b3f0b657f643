"""The in-toto project's own reader takes the statement in every golden artifact, and finds the same in it."""

import json
from pathlib import Path

import pytest

from budc.schema.artifact import read

GOLDEN = sorted((Path(__file__).parent / "v1.0").glob("*.budc.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=[path.name for path in GOLDEN])
def test_in_toto_takes_the_statement(path: Path) -> None:
    pytest.importorskip("in_toto_attestation")
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    artifact = read(path)
    statement = Statement.copy_from_pb(json_format.Parse(artifact.payload, Message()))
    statement.validate()
    files = artifact.document.model.variants[0].files
    assert {subject.name: subject.digest["sha256"] for subject in statement.pb.subject} == dict(files)
    assert statement.pb.predicate_type == "urn:budc:policy:v1"
    predicate = json_format.MessageToDict(statement.pb.predicate)
    assert predicate == json.loads(artifact.payload)["predicate"]
