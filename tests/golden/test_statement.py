"""The in-toto project's own reader takes the statement in every golden artifact, and finds the same in it."""

import json
from pathlib import Path

import pytest

from budc.schema.artifact import read

GOLDEN = sorted(Path(__file__).parent.glob("v*/*.budc.json"))


@pytest.mark.parametrize("path", GOLDEN, ids=[f"{path.parent.name}-{path.name}" for path in GOLDEN])
def test_in_toto_takes_the_statement(path: Path) -> None:
    pytest.importorskip("in_toto_attestation")
    from google.protobuf import json_format
    from in_toto_attestation.v1.statement import Statement
    from in_toto_attestation.v1.statement_pb2 import Statement as Message

    artifact = read(path)
    statement = Statement.copy_from_pb(json_format.Parse(artifact.payload, Message()))
    statement.validate()
    model = artifact.document.model
    if model.variants:
        bound = {name: {"sha256": digest} for name, digest in model.variants[0].files.items()}
    else:
        roots = {item.name: item.tensor_root.removeprefix("sha256:") for item in model.denoisers}
        bound = {name: {"budc.tensors.v1": root} for name, root in roots.items()}
    assert {subject.name: dict(subject.digest) for subject in statement.pb.subject} == bound
    assert statement.pb.predicate_type == "urn:budc:policy:v1"
    predicate = json_format.MessageToDict(statement.pb.predicate)
    assert predicate == json.loads(artifact.payload)["predicate"]
