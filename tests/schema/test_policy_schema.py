"""The Structs and the published JSON Schema are two readings of one format: here they are held together."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from budc.schema import canonical, published
from budc.schema.additions import check_fields
from budc.schema.errors import SchemaViolation
from budc.schema.policy import AdapterRule, PolicyDocument, Variant
from budc.schema.statement import encode_statement

MakeDocument = Callable[..., PolicyDocument]
Place = tuple[str | int, ...]

VALIDATOR = Draft202012Validator(published.load_schema())
DIGEST = "sha256:" + "0" * 64

# At every place of a valid document, each of these is tried: types, edges of every bound, and hostile text.
PROBES: list[Any] = [
    None, True, False, -1, 0, 1, 2, 3, 64, 64.5, -64.5, 1000, 1001, 65536, 65537, 1_000_000, 1_000_001,
    2**31 - 1,
    2**31, 10**15, 10**15 + 1, -(10**15) - 1, 2**53 - 1, 0.5, -0.5, 0.1, 1e-6, 9e-7, 1e-300, 1e16, -1e16, 1e300,
    "", "a", "a\n", "\n", "a b", "é", "-a", ".a", "..", "1.0", "1.1", "a/b", "a" * 128, "a" * 129,
    "a" * 1024,
    "a" * 1025, "😀" * 1024, "\u202e", "\u200b", "\x00", "\x7f", "\ufeff", "\u2029", "none", "any",
    "listed", "float32", "network", "pipeline", "fixed", "varied", "trunk-output", "first-frame", "x" * 8192,
    "x" * 8193, {"rule": "fixed", "text": ""}, {"role": "reference"}, {"name": "a"},
    "trunk-residual", "distilled", "0" * 64, "0" * 63, "0" * 64 + "\n", "A" * 64, DIGEST, DIGEST + "\n",
    DIGEST + "0", DIGEST.upper(), "2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z\n",
    "2026-07-01T12:00:00+00:00",
    "２026-07-01T12:00:00Z", [], {}, [None], [1], [True], [[1]], [[1, 2, 3]], [[1, 2, 3, 4]], [[65]],
    ["a"], [{}],
    [1] * 1000, [1] * 1001, [1] * 1002, ["a"] * 17, ["a\n"], {"a": 1}, {"a": "b"}, {"a": "b\n"},
    {"a\n": "b"},
    {"": 1}, {"a": None}, {"a": [1]}, {"a": [[1]]}, {"a": 0}, {"a": "0" * 64}, {"a/b.json": "0" * 64},
    {"../b": "0" * 64}, {"a/../b": "0" * 64}, {"/a": "0" * 64}, {"a/": "0" * 64}, {"a//b": "0" * 64},
    {"./a": "0" * 64}, {"a/.": "0" * 64}, {"a\\b": "0" * 64}, {"..a/...": "0" * 64}, {"a" * 513: "0" * 64},
    {f"k{i}": 1 for i in range(17)}, {f"k{i}": "v" for i in range(65)}, {f"k{i}": "v" for i in range(257)},
]  # fmt: skip


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


def places(value: object, at: Place = ()) -> Iterator[Place]:
    """Every place in a document; of lists the first entry only, the others being of the same kind."""
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*at, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*at, 0))


def parent(value: Any, at: Place) -> Any:
    for key in at[:-1]:
        value = value[key]
    return value


def test_the_schema_is_valid_and_strict_about_every_object_string_and_array() -> None:
    schema = published.load_schema()
    Draft202012Validator.check_schema(schema)

    def walk(node: Any, where: str) -> None:
        if isinstance(node, list):
            for index, item in enumerate(node):
                walk(item, f"{where}/{index}")
        if not isinstance(node, dict):
            return
        kind = node.get("type")
        if kind == "object":
            assert "additionalProperties" in node, where
            assert node["additionalProperties"] is False or "maxProperties" in node, where
        if kind == "array":
            assert {"maxItems", "items"} <= node.keys(), where
        if kind == "string":
            assert "maxLength" in node, where
        if kind in ("number", "integer"):
            assert {"minimum", "maximum"} <= node.keys(), where
        for key, item in node.items():
            walk(item, f"{where}/{key}")

    # These narrow for a version or a kind what the others describe.
    narrowing = ("fieldsOfVersion", "fieldsOfKind", "measured")
    definitions = {name: node for name, node in schema["$defs"].items() if name not in narrowing}
    walk(schema | {"$defs": definitions}, "#")


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
