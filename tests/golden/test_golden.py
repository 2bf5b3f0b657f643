"""Artifacts of released versions verify for ever, and mean what they meant."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from budc.cli import main
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
FROZEN = "8496c36ee549c31e8c17fcc4b61247c35e2e20b7817823f90afeba0f2616b032"
"""sha256 over the names and contents of v1.0, in order of their names."""


def test_nothing_frozen_has_changed() -> None:
    digest = hashlib.sha256()
    for path in sorted((HERE / "v1.0").iterdir()):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    assert digest.hexdigest() == FROZEN
    assert set((HERE / "v1.0").glob("*.budc.json")) == GOLDEN.keys()


@pytest.mark.parametrize(("path", "expected"), GOLDEN.items(), ids=[path.name for path in GOLDEN])
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
    optional = {
        "experts": [[e.denoiser, e.first_step, e.guidance] for e in document.sampler.experts],
        "replayTolerance": document.quality.replay_tolerance,
    }
    assert {name: value for name, value in optional.items() if value} | {
        "policyId": artifact.policy_id,
        "signers": expected["signers"],
        "name": document.name,
        "revision": document.revision,
        "steps": document.sampler.steps,
        "nfe": document.budget.nfe,
        "branches": dict(document.budget.branches),
        "masks": {
            name: "".join("#" if computed else "." for computed in branch.mask)
            for branch in document.policy.branches
            for name in branch.names
        },
        "payload": document.policy.payload,
        "configDigest": document.sampler.config_digest,
    } == expected
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
