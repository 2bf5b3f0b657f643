"""The Structs and the published JSON Schema are two readings of one format: here they are held together."""

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator
from schema_probes import DIGEST, PROBES, check_strictness, parent, places

from budc.schema import canonical, published
from budc.schema.additions import check_fields
from budc.schema.errors import SchemaViolation
from budc.schema.policy import AdapterRule, PolicyDocument, Variant
from budc.schema.statement import encode_statement

MakeDocument = Callable[..., PolicyDocument]

VALIDATOR = Draft202012Validator(published.load_schema())


def accepted_by_schema(predicate: object) -> bool:
    return bool(VALIDATOR.is_valid(predicate))


def accepted_by_structs(predicate: object) -> bool:
    try:
        document = msgspec.convert(predicate, type=PolicyDocument)
    except msgspec.ValidationError:
        return False
    try:
        check_fields(document)
    except SchemaViolation:
        return False
    return bool(msgspec.to_builtins(document) == predicate)


def assert_same_verdict(predicate: object, where: object) -> bool:
    verdict = accepted_by_schema(predicate)
    assert accepted_by_structs(predicate) is verdict, where
    return verdict


def full_1_0(make_document: MakeDocument) -> dict[str, Any]:
    """Return a document with every optional field of format 1.0 set."""
    document = make_document(
        steps=3,
        nfe=2,
        not_after="2027-01-01T00:00:00Z",
        derived_from=DIGEST,
        annotations={"note": "as measured"},
    )
    model = msgspec.structs.replace(document.model, adapters=AdapterRule(rule="listed", digests=[DIGEST]))
    document = msgspec.structs.replace(document, model=model)
    value: dict[str, Any] = canonical.decode(canonical.encode(msgspec.to_builtins(document)))  # type: ignore[assignment]
    metric = value["quality"]["metrics"][0]
    metric |= {"unit": "dB", "geometricMean": 0.5, "p95": 2}
    value["quality"]["replayTolerance"] = 0.05
    value["sampler"]["experts"] = [{"denoiser": "transformer_2", "firstStep": 1, "guidance": 3}]
    value["sampler"]["config"] = {"betas": [1, 0.5, "x", None, True], "shift": 2.5, "kind": "bh2"}
    return value


def full_1_1(make_document: MakeDocument) -> dict[str, Any]:
    """Return a document of a pipeline with every optional field of format 1.1 set as well."""
    value = full_1_0(make_document)
    value["schemaVersion"] = "1.1"
    value["quality"]["metrics"][0]["evaluation"] = DIGEST
    value["quality"]["baselines"][0]["metrics"][0]["evaluation"] = DIGEST
    adapter = {"name": "style", "file": "0" * 64, "loaded": DIGEST, "scale": 0.75, "denoiser": "transformer"}
    value["model"]["adapters"]["scaled"] = [adapter]
    value["sampler"]["negativePrompt"] = {"rule": "fixed", "text": "blurred"}
    value["model"]["denoisers"][0]["config"] = {
        "betas": [1, 0.5, "x", None, True],
        "layers": 2,
        "norm": "rms",
    }
    value["model"]["denoisers"][0]["quantization"] = {"kind": "fp8-storage", "values": DIGEST}
    value["policy"]["payload"] = "trunk-output"
    value["images"] = [{"role": "first-frame", "height": 32, "width": 32}]
    settings = {"attention": "sdpa", "depth": 2, "strict": None}
    value["target"] = {"name": "sglang", "version": "0.5", "settings": settings, "configDigest": DIGEST}
    further = {"height": 32, "width": 64, "frames": 5, "quality": copy.deepcopy(value["quality"])}
    schedule = {"sigmas": value["sampler"]["sigmas"], "timesteps": value["sampler"]["timesteps"]}
    value["furtherShapes"] = [further | schedule | {"branches": copy.deepcopy(value["policy"]["branches"])}]
    return value


def full_network(make_document: MakeDocument) -> dict[str, Any]:
    """Return a document of a network with every optional field that it may have."""
    value = full_1_1(make_document)
    for name in ("shape", "furtherShapes", "images"):
        del value[name]
    for name in ("profile", "pipelineClass"):
        del value["model"][name]
    del value["sampler"]["negativePrompt"]
    value["model"]["kind"] = "network"
    return value


FULL = {"1.0": full_1_0, "1.1": full_1_1, "network": full_network}


@pytest.fixture(scope="module", params=FULL)
def full(request: pytest.FixtureRequest, make_document: MakeDocument) -> dict[str, Any]:
    """A document with every optional field set, of each version and kind."""
    value: dict[str, Any] = FULL[request.param](make_document)
    return value


def test_the_schema_is_valid_and_strict_about_every_object_string_and_array() -> None:
    schema = published.load_schema()
    # These narrow for a version or a kind what the others describe.
    narrowing = ("fieldsOfVersion", "fieldsOfKind", "measured")
    definitions = {name: node for name, node in schema["$defs"].items() if name not in narrowing}
    Draft202012Validator.check_schema(schema)
    check_strictness(schema | {"$defs": definitions})


def test_valid_documents_are_accepted_by_both(make_document: MakeDocument, full: dict[str, Any]) -> None:
    for document in (make_document(), make_document(branches=["cond"]), make_document(steps=1000, nfe=999)):
        predicate = canonical.decode(canonical.encode(msgspec.to_builtins(document)))
        assert assert_same_verdict(predicate, document.name)
    assert assert_same_verdict(full, "full")


def probe(full: dict[str, Any], stride: int) -> None:
    """Try every `stride`-th probe at every place, the others at the places after it."""
    verdicts = set()
    for index, at in enumerate(places(full)):
        if not at:
            continue
        changed = copy.deepcopy(full)
        holder = parent(changed, at)
        for value in PROBES[index % stride :: stride]:
            holder[at[-1]] = value
            verdicts.add(assert_same_verdict(changed, (at, value)))
    assert verdicts == {True, False}


def test_both_agree_on_a_share_of_the_probes_at_every_place(full: dict[str, Any]) -> None:
    probe(full, stride=61)


@pytest.mark.slow
@pytest.mark.endless
def test_both_agree_on_every_probe_at_every_place(full: dict[str, Any]) -> None:
    probe(full, stride=1)


def test_both_agree_when_a_field_is_missing(full: dict[str, Any]) -> None:
    optional = set()
    for at in places(full):
        if at and isinstance(at[-1], str):
            changed = copy.deepcopy(full)
            del parent(changed, at)[at[-1]]
            if assert_same_verdict(changed, at):
                optional.add(at[-1])
    config = {"betas", "shift", "kind", "layers", "norm"}
    settings = {"radius", "restarts", "tolerance", "paired", "loss", "budc", "torch", "cond", "uncond"}
    files = set(full["model"]["variants"][0]["files"])
    settings |= set(full.get("target", {}).get("settings", {}))
    both = {
        "notAfter", "derivedFrom", "annotations", "digests", "unit", "geometricMean", "p95", "replayTolerance",
        "experts",
    }  # fmt: skip
    added = {
        "target", "version", "settings", "configDigest", "scaled", "loaded", "denoiser", "evaluation",
        "config", "quantization",
    }  # fmt: skip
    of_pipelines = {
        "images", "height", "width", "negativePrompt", "text", "furtherShapes", "sigmas", "timesteps",
        "branches",
    }  # fmt: skip
    if full["schemaVersion"] == "1.0":
        expected = both | {"textTokens"}
    elif "kind" in full["model"]:
        expected = both | added | {"variants"}
    else:
        expected = both | added | of_pipelines | {"textTokens"}
    assert optional - config - settings - files == expected


def test_both_refuse_an_unknown_field_in_every_object(full: dict[str, Any]) -> None:
    free = {
        ("annotations",),
        ("sampler", "config"),
        ("model", "denoisers", 0, "config"),
        ("search", "settings"),
        ("search", "versions"),
        ("budget", "branches"),
        ("target", "settings"),
    }
    for at in places(full):
        changed = copy.deepcopy(full)
        target = parent(changed, (*at, "")) if at else changed
        if isinstance(target, dict):
            target["later"] = 1
            expected = at in free - {("annotations",), ("search", "versions")}
            assert assert_same_verdict(changed, at) is expected, at


def test_an_unsafe_value_put_into_a_struct_is_refused_before_it_is_encoded(
    make_document: MakeDocument,
) -> None:
    model = make_document().model
    variant = Variant(name="../escape", files=model.variants[0].files)
    broken = make_document(model=msgspec.structs.replace(model, variants=[variant]))
    with pytest.raises(SchemaViolation, match="variants"):
        encode_statement(broken)


def test_the_message_of_the_published_schema_names_the_place(make_document: MakeDocument) -> None:
    payload = encode_statement(make_document()).replace(b'"frames":9', b'"frames":0')
    with pytest.raises(SchemaViolation, match=r"\$\.shape\.frames"):
        published.check_schema(payload)
