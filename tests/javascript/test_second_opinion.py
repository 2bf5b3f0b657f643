"""Verifiers that others wrote, in another language, over the corpus: the same verdicts.

`npm ci` in this folder installs them, at the versions that package-lock.json pins.
"""

import json
import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from budc.schema import canonical
from budc.schema import envelope as dsse
from budc.schema.additions import check_fields
from budc.schema.artifact import read
from budc.schema.bundle import decode_bundle
from budc.schema.errors import BudcError, SchemaViolation
from budc.schema.evaluation import EvaluationDocument
from budc.schema.policy import PolicyDocument
from budc.schema.published import EVALUATION_SCHEMA, POLICY_SCHEMA, load_schema
from budc.schema.trust import Trust

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"
ATTACKS = HERE.parent / "attacks"
# Where this reader refuses and Sigstore's client does not: it knows other bundle versions, and does not look at which type is
# signed, at members that it does not know, at sizes or at the rules of a trust file.
STRICTER = {
    "json-other-bundle-version",
    "sig-wrong-payload-type",
    "sig-names-an-algorithm",
    "sig-brings-its-key",
    "sig-key-of-other-family",
    "sig-control-character-in-keyid",
    "json-duplicate-key-in-bundle",
    "json-lone-surrogate-in-bundle",
    "size-over-a-mebibyte",
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
    pytest.mark.skipif(
        not (HERE / "node_modules").is_dir(), reason=f"its packages are not: run npm ci in {HERE.name}"
    ),
]


def ask(bundles: list[dict[str, Any]], predicates: Sequence[Any] = (), schema: str = POLICY_SCHEMA) -> Any:
    question = {"schema": load_schema(schema), "bundles": bundles, "predicates": list(predicates)}
    done = subprocess.run(
        ["node", "check.mjs"],
        cwd=HERE,
        input=json.dumps(question).encode(),
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_sigstore_agrees_about_golden_artifacts() -> None:
    expected = {
        folder / name: entry
        for folder in sorted(GOLDEN.glob("v*"))
        for name, entry in json.loads((folder / "expected.json").read_text("utf-8")).items()
    }
    bundles = [
        {
            "name": str(path),
            "text": path.read_text("utf-8"),
            "pems": [(path.parent / f"{signer}.pub").read_text() for signer in entry["signers"]],
        }
        for path, entry in expected.items()
    ]
    said = ask(bundles)["signatures"]
    # One signature a bundle is what Sigstore reads: none and two are refused as bundles.
    assert {name for name, reason in said.items() if reason is None} == {
        str(path) for path, entry in expected.items() if len(entry["signers"]) == 1
    }, said


def test_sigstore_agrees_about_the_attacks_on_signatures() -> None:
    cases = json.loads((ATTACKS / "expected.json").read_text("utf-8"))["artifacts"]
    bundles, ours = [], {}
    for name in cases:
        data = (ATTACKS / "artifacts" / f"{name}.budc.json").read_bytes()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            continue
        trust = Trust.load(ATTACKS / "trust" / f"{cases[name]['trust']}.toml")
        bundles.append({"name": name, "text": text, "pems": [key.pem.decode() for key in trust.keys]})
        try:
            bundle = decode_bundle(data)
            dsse.verify(bundle.envelope, trust.keys, threshold=trust.threshold, hint=bundle.hint)
            ours[name] = len(bundle.envelope.signatures) == 1
        except BudcError:
            ours[name] = False
    said = ask(bundles)["signatures"]
    theirs = {name: reason is None for name, reason in said.items()}
    assert {name for name in ours if ours[name] and not theirs[name]} == set(), said
    assert {name for name in ours if theirs[name] and not ours[name]} <= STRICTER


def by_structs(predicate: Any, kind: type = PolicyDocument) -> bool:
    try:
        document = msgspec.convert(predicate, type=kind)
        if isinstance(document, PolicyDocument):
            check_fields(document)
        return bool(msgspec.to_builtins(document) == predicate)
    except (msgspec.ValidationError, SchemaViolation):
        return False


def test_a_schema_validator_in_javascript_has_the_same_verdicts(fuzzer: Any) -> None:
    predicates: list[Any] = []
    for path in [*GOLDEN.glob("v*/*.budc.json"), *(ATTACKS / "artifacts").iterdir()]:
        try:
            value = canonical.decode(decode_bundle(path.read_bytes()).envelope.payload)
        except BudcError:
            continue
        if isinstance(value, dict) and "predicate" in value:
            predicates.append(value["predicate"])
    rng = random.Random(5)
    for name in ("v1.0/every-field", "v1.1/every-addition", "v1.1/network-by-tensor-root"):
        valid: Any = canonical.decode(read(GOLDEN / f"{name}.budc.json").payload)
        predicates += [fuzzer.mutated_value(valid["predicate"], rng) for _ in range(2000)]
    check_verdicts(predicates, POLICY_SCHEMA, PolicyDocument)


def test_it_has_them_about_evaluations_too(
    fuzzer: Any, make_document: Callable[..., Any], make_evaluation: Callable[..., Any]
) -> None:
    valid: Any = msgspec.to_builtins(make_evaluation(make_document()))
    rng = random.Random(6)
    predicates = [valid, *(fuzzer.mutated_value(valid, rng) for _ in range(2000))]
    check_verdicts(predicates, EVALUATION_SCHEMA, EvaluationDocument)


def check_verdicts(predicates: Sequence[Any], schema: str, kind: type) -> None:
    """Compare the verdicts of the validator in JavaScript, of the one in Python, and of the Structs."""
    theirs = ask([], predicates, schema)["predicates"]
    validator = Draft202012Validator(load_schema(schema))
    for predicate, verdict in zip(predicates, theirs, strict=True):
        assert validator.is_valid(predicate) is verdict, predicate
        assert by_structs(predicate, kind) is verdict, predicate
    assert {True, False} == set(theirs)


@pytest.fixture(scope="module")
def fuzzer() -> Any:
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location("budc_fuzz", HERE.parent / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
