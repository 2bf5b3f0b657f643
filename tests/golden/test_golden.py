"""Artifacts of released versions verify for ever, and mean what they meant."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from artifact_meaning import meaning

from budc.cli import main
from budc.schema.additions import additions
from budc.schema.artifact import open_artifact, read
from budc.schema.envelope import PAYLOAD_TYPE, pae
from budc.schema.errors import Unsigned, UntrustedKey
from budc.schema.keys import load_public
from budc.schema.published import check_schema
from budc.schema.statement import encode_statement
from budc.schema.trust import Trust

HERE = Path(__file__).parent
GOLDEN = {
    path: expected
    for folder in sorted(HERE.glob("v*"))
    for name, expected in json.loads((folder / "expected.json").read_text("utf-8")).items()
    for path in [folder / name]
}
FROZEN = {
    "v1.0": "8496c36ee549c31e8c17fcc4b61247c35e2e20b7817823f90afeba0f2616b032",
    "v1.1": "63c5ab71a7ec2ba1ce0f028ba40cad1923e0f89822790671c33198d9729b9721",
}
"""sha256 over the names and contents of each folder, in order of their names."""


@pytest.mark.parametrize("version", FROZEN)
def test_nothing_frozen_has_changed(version: str) -> None:
    digest = hashlib.sha256()
    for path in sorted((HERE / version).iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    assert digest.hexdigest() == FROZEN[version]


def test_every_golden_artifact_is_listed() -> None:
    assert set(HERE.glob("v*/*.budc.json")) == GOLDEN.keys()
    assert {path.name for path in HERE.glob("v*")} == FROZEN.keys()


def test_a_version_says_what_it_added() -> None:
    for path in GOLDEN:
        document = read(path).document
        added = path.parent.name == "v1.1" and path.name != "nothing-new.budc.json"
        assert (f"v{document.schema_version}", bool(additions(document))) == (path.parent.name, added), path


@pytest.mark.parametrize(
    ("path", "expected"), GOLDEN.items(), ids=[f"{path.parent.name}-{path.name}" for path in GOLDEN]
)
def test_it_verifies_and_means_what_it_meant(path: Path, expected: dict[str, Any]) -> None:
    keys = [load_public(path.parent / f"{name}.pub") for name in expected["signers"]]
    if keys:
        artifact = open_artifact(path, Trust(tuple(keys), threshold=len(keys)))
        assert artifact.verified_by == tuple(keys)
        with pytest.raises(UntrustedKey):
            open_artifact(path, Trust(()))
    else:
        with pytest.raises(Unsigned):
            open_artifact(path, Trust(()))
        artifact = read(path)
    document = artifact.document
    assert meaning(document, artifact.policy_id, expected["signers"]) == expected
    assert encode_statement(document) == artifact.payload
    check_schema(artifact.payload)


def test_the_command_line_verifies_one() -> None:
    golden = HERE / "v1.0"
    assert main(["verify", str(golden / "compiled.budc.json"), "--trust", str(golden / "compiled.pub")]) == 0


def test_the_worked_example_of_the_specification_holds() -> None:
    artifact = read(HERE / "v1.0" / "ed25519.budc.json")
    message = pae(PAYLOAD_TYPE, artifact.payload)
    spec = (HERE.parents[1] / "docs" / "spec" / "artifact-v1.md").read_text("utf-8")
    for value in (
        f"{len(artifact.payload)} bytes",
        artifact.policy_id,
        f"{len(message)} bytes",
        hashlib.sha256(message).hexdigest(),
        load_public(HERE / "v1.0" / "ed25519.pub").fingerprint,
        artifact.signatures[0].value.hex()[:32],
        artifact.document.sampler.config_digest,
    ):
        assert value in spec, value
