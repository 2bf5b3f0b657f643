"""Makes the attack corpus: files and folders that a reader must refuse, each with the error that it gets.

    python tests/attacks/make.py [FOLDER]          # default: this folder; weights/ and models/ are not kept in git

Every case is a change to one valid artifact (a golden one, bound to a small model) or to that model's folder, and is one
entry of `artifacts`, `weights` or `models` below. Keys are Ed25519, so the same script makes the same bytes. Nothing of the
package is used here, so that the reader is not tested against itself.

FOLDER/artifacts/NAME.budc.json     opened with FOLDER/trust/TRUST.toml
FOLDER/weights/NAME.safetensors     read for its tensors
FOLDER/models/NAME/                 checked against FOLDER/valid.budc.json
FOLDER/expected.json                for each: error class, trust file, whether unsigned ones are allowed, and why
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE = Path(__file__).parent
TYPE = "application/vnd.in-toto+json"
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
TRUSTED = Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
SECOND = Ed25519PrivateKey.from_private_bytes(b"\2" * 32)
STRANGER = Ed25519PrivateKey.from_private_bytes(b"\3" * 32)
P256 = derive_private_key(7, SECP256R1())
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of the group of P-256."""


@dataclass(frozen=True)
class Case:
    """What one file or folder of the corpus gets."""

    error: str
    why: str
    trust: str = "default"
    unsigned: bool = False
    """Whether unsigned artifacts are allowed when it is opened."""


def safetensors(tensors: dict[str, bytes], **header: Any) -> bytes:
    """Return a safetensors file of float32 vectors; `header` replaces entries."""
    entries: dict[str, Any] = {}
    data = b""
    for name, content in tensors.items():
        entries[name] = {
            "dtype": "F32",
            "shape": [len(content) // 4],
            "data_offsets": [len(data), len(data) + len(content)],
        }
        data += content
    text = json.dumps(entries | header).encode()
    return len(text).to_bytes(8, "little") + text + data


WEIGHTS = {"proj.weight": b"\0\0\x80\x3f\0\0\0\xc0", "proj.bias": b"\0\0\0\x40"}
SHARD = "transformer/diffusion_pytorch_model.safetensors"
CONFIG, SCHEDULER = "transformer/config.json", "scheduler/scheduler_config.json"
MODEL = {SHARD: safetensors(WEIGHTS), CONFIG: b'{"_class_name": "WanTransformer3DModel"}', SCHEDULER: b"{}"}


def prefixed(data: bytes) -> bytes:
    """Return bytes after their length."""
    return len(data).to_bytes(8, "big") + data


def root(tag: bytes, values: bool) -> str:
    """Return the tensor root or the architecture digest of `WEIGHTS`, as the specification defines them."""
    text = prefixed(tag)
    for name, content in sorted(WEIGHTS.items()):
        shape = (1).to_bytes(8, "big") + (len(content) // 4).to_bytes(8, "big")
        text += prefixed(name.encode())
        text += prefixed(b"F32") + shape + prefixed(hashlib.sha256(content).digest()) if values else shape
    return "sha256:" + hashlib.sha256(text).hexdigest()


def statement() -> dict[str, Any]:
    """Return the valid statement that every case starts from."""
    golden = json.loads((HERE.parent / "golden" / "v1.0" / "unsigned.budc.json").read_text("utf-8"))
    value: dict[str, Any] = json.loads(base64.b64decode(golden["dsseEnvelope"]["payload"]))
    model = value["predicate"]["model"]
    model["variants"] = [
        {
            "name": "original",
            "files": {name: hashlib.sha256(data).hexdigest() for name, data in MODEL.items()},
        }
    ]
    model["denoisers"][0] |= {
        "tensorRoot": root(b"budc.tensors.v1", True),
        "architecture": root(b"budc.architecture.v1", False),
    }
    value["predicate"]["name"] = "attacked"
    return bound(value)


def bound(value: dict[str, Any]) -> dict[str, Any]:
    """Return the statement with the subjects that its first variant asks for."""
    files = value["predicate"]["model"]["variants"][0]["files"]
    value["subject"] = [{"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)]
    return value


def changed(*place: str | int, to: Any) -> dict[str, Any]:
    """Return the statement with one value of its predicate replaced; `to` may be a function of the old one."""
    value = copy.deepcopy(statement())
    holder: Any = value["predicate"]
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = to(holder[place[-1]]) if callable(to) else to
    if place[:1] == ("model",):
        bound(value)
    if place[:2] == ("sampler", "config"):
        config = value["predicate"]["sampler"]["config"]
        value["predicate"]["sampler"]["configDigest"] = (
            "sha256:" + hashlib.sha256(rfc8785.dumps(config)).hexdigest()
        )
    return value


def without(*place: str | int) -> dict[str, Any]:
    """Return the statement without one field of its predicate."""
    value = copy.deepcopy(statement())
    holder: Any = value["predicate"]
    for key in place[:-1]:
        holder = holder[key]
    del holder[place[-1]]
    return value


def fingerprint(key: Any) -> str:
    """Return the key id of a private key's public half."""
    der = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(der).hexdigest()


def pae(kind: str, payload: bytes) -> bytes:
    """Return what DSSE signs."""
    return b"DSSEv1 %d %b %d %b" % (len(kind.encode()), kind.encode(), len(payload), payload)


def payload_of(value: dict[str, Any]) -> bytes:
    """Return canonical bytes; what canonical JSON cannot say is said as plain JSON."""
    return rfc8785.dumps(value)


def bundle(
    payload: bytes,
    *keys: Any,
    kind: str = TYPE,
    signed: bytes | None = None,
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> bytes:
    """Return a bundle over `payload`, signed by `keys` (over `signed`, if given); `edit` changes it at last."""
    message = pae(kind, payload) if signed is None else signed
    signatures = [
        {"keyid": fingerprint(key), "sig": base64.b64encode(key.sign(message)).decode()} for key in keys
    ]
    value = {
        "mediaType": MEDIA,
        "verificationMaterial": {"publicKey": {"hint": signatures[0]["keyid"] if signatures else ""}},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": kind,
            "signatures": signatures,
        },
    }
    if edit is not None:
        edit(value)
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def policy(value: dict[str, Any]) -> bytes:
    """Return a changed statement, signed by the trusted key: the signature does not make it a policy."""
    return bundle(payload_of(value), TRUSTED)


def raw(old: bytes, new: bytes) -> bytes:
    """Return the valid payload with some bytes replaced, signed by the trusted key."""
    payload = payload_of(statement())
    assert payload.count(old) >= 1, old
    return bundle(payload.replace(old, new, 1), TRUSTED)


def edited(edit: Callable[[dict[str, Any]], None]) -> bytes:
    """Return the valid artifact with its bundle changed."""
    return bundle(payload_of(statement()), TRUSTED, edit=edit)


def envelope(name: str, to: Any) -> bytes:
    """Return the valid artifact with one field of its envelope replaced."""
    return edited(lambda value: value["dsseEnvelope"].__setitem__(name, to))


def signature(name: str, to: Any) -> bytes:
    """Return the valid artifact with one field of its signature replaced."""
    return edited(lambda value: value["dsseEnvelope"]["signatures"][0].__setitem__(name, to))


def flipped(text: str) -> str:
    """Return base64 with a bit of its middle byte changed."""
    data = bytearray(base64.b64decode(text))
    data[len(data) // 2] ^= 1
    return base64.b64encode(data).decode()


def variant_file(path: str) -> dict[str, Any]:
    """Return the statement with another file listed."""
    return changed("model", "variants", 0, "files", to=lambda files: files | {path: "a" * 64})


def malleable() -> bytes:
    """Return a bundle with the trusted ECDSA key's name, and the number zero for both halves of the signature."""
    payload = payload_of(statement())
    sig = base64.b64encode(b"\x30\x06\x02\x01\x00\x02\x01\x00").decode()

    def edit(value: dict[str, Any]) -> None:
        value["dsseEnvelope"]["signatures"] = [{"keyid": fingerprint(P256), "sig": sig}]

    return bundle(payload, edit=edit)


def artifacts() -> dict[str, tuple[bytes, Case]]:
    """Return name → (file, what it gets)."""
    valid = payload_of(statement())
    other = payload_of(changed("revision", to=2))
    deep = b"[" * 40 + b"]" * 40
    found: dict[str, tuple[bytes, Case]] = {}

    def add(name: str, data: bytes, error: str, why: str, **rest: Any) -> None:
        assert name not in found, name
        found[name] = (data, Case(error, why, **rest))

    # Signatures.
    add(
        "sig-bit-flipped",
        edited(
            lambda v: v["dsseEnvelope"]["signatures"][0].__setitem__(
                "sig", flipped(v["dsseEnvelope"]["signatures"][0]["sig"])
            )
        ),
        "SignatureInvalid",
        "one bit of the signature",
    )
    add("sig-truncated", signature("sig", "AAAA"), "SignatureInvalid", "three bytes for a signature")
    add(
        "sig-zero-ecdsa",
        malleable(),
        "SignatureInvalid",
        "r = s = 0 under the name of a trusted ECDSA key",
        trust="ecdsa",
    )
    add(
        "sig-payload-swapped",
        bundle(other, TRUSTED, signed=pae(TYPE, valid)),
        "SignatureInvalid",
        "another policy under a good signature",
    )
    add(
        "sig-over-bare-payload",
        bundle(valid, TRUSTED, signed=valid),
        "SignatureInvalid",
        "signed without the type",
    )
    add(
        "sig-over-other-type",
        bundle(valid, TRUSTED, signed=pae("text/plain", valid)),
        "SignatureInvalid",
        "a signature over a text, used for a policy",
    )
    add(
        "sig-stripped",
        edited(lambda v: v["dsseEnvelope"].pop("signatures")),
        "Unsigned",
        "the list of signatures is gone",
    )
    add("sig-empty-list", envelope("signatures", []), "Unsigned", "the list of signatures is empty")
    add("sig-stranger", bundle(valid, STRANGER), "UntrustedKey", "a good signature by nobody who is trusted")
    add(
        "sig-stranger-allowed-unsigned",
        bundle(valid, STRANGER),
        "UntrustedKey",
        "allowing unsigned artifacts allows no foreign signature",
        unsigned=True,
    )
    add(
        "sig-stranger-claims-trusted-keyid",
        bundle(
            valid,
            STRANGER,
            edit=lambda v: v["dsseEnvelope"]["signatures"][0].__setitem__("keyid", fingerprint(TRUSTED)),
        ),
        "SignatureInvalid",
        "a stranger under a trusted key's name",
    )
    add(
        "sig-stranger-claims-trusted-hint",
        bundle(
            valid,
            STRANGER,
            edit=lambda v: v["verificationMaterial"]["publicKey"].__setitem__("hint", fingerprint(TRUSTED)),
        ),
        "SignatureInvalid",
        "a stranger under a trusted key's hint",
    )
    add(
        "sig-one-key-twice",
        bundle(valid, TRUSTED, TRUSTED),
        "UntrustedKey",
        "one key counted for two",
        trust="two",
    )
    add(
        "sig-one-of-two",
        bundle(valid, TRUSTED, STRANGER),
        "UntrustedKey",
        "one trusted signature where two are required",
        trust="two",
    )
    add("sig-seventeen", bundle(valid, *[TRUSTED] * 17), "SchemaViolation", "more signatures than are read")
    add("sig-not-base64", signature("sig", "!!!!"), "ArtifactSyntax", "a signature that is not base64")
    add("sig-urlsafe-base64", signature("sig", "-_-_"), "ArtifactSyntax", "the other alphabet of base64")
    add(
        "sig-base64-slack-bits", signature("sig", "AAF="), "ArtifactSyntax", "two spellings of the same bytes"
    )
    add(
        "sig-names-an-algorithm",
        signature("alg", "none"),
        "SchemaViolation",
        "the file chooses the algorithm",
    )
    add(
        "sig-brings-its-key",
        signature("publicKey", "-----BEGIN PUBLIC KEY-----"),
        "SchemaViolation",
        "the file brings the key to be checked with",
    )
    add(
        "sig-certificate-in-place-of-key",
        edited(lambda v: v.__setitem__("verificationMaterial", {"certificate": {"rawBytes": "AAAA"}})),
        "SchemaViolation",
        "a certificate of the file's own choice",
    )
    add(
        "sig-key-of-other-family",
        bundle(valid, TRUSTED),
        "UntrustedKey",
        "a key that may sign for another family",
        trust="family",
    )
    add(
        "sig-wrong-payload-type",
        bundle(valid, TRUSTED, kind="application/json"),
        "WrongPayloadType",
        "a good signature over something of another type",
    )
    add(
        "sig-control-character-in-keyid",
        signature("keyid", "\x1b]0;owned\x07"),
        "SchemaViolation",
        "a terminal escape as a key's name",
    )
    # Statement.
    add(
        "statement-other-predicate",
        policy(statement() | {"predicateType": "https://slsa.dev/provenance/v1"}),
        "WrongPayloadType",
        "a good signature over another kind of attestation",
    )
    add("statement-not-one", bundle(b"{}", TRUSTED), "WrongPayloadType", "not an in-toto statement")
    add("statement-a-list", bundle(b"[]", TRUSTED), "WrongPayloadType", "JSON of another kind")
    add(
        "statement-next-major",
        policy(statement() | {"predicateType": "urn:budc:policy:v2"}),
        "UnsupportedVersion",
        "a version that is not known",
    )
    add(
        "statement-next-minor",
        policy(changed("schemaVersion", to="1.1")),
        "UnsupportedVersion",
        "a minor version that is not known",
    )
    add(
        "statement-subject-missing",
        policy(statement() | {"subject": statement()["subject"][1:]}),
        "SemanticsViolation",
        "a bound file that is no subject",
    )
    add(
        "statement-subject-other-digest",
        policy(
            statement()
            | {"subject": [item | {"digest": {"sha256": "0" * 64}} for item in statement()["subject"]]}
        ),
        "SemanticsViolation",
        "subjects and variant disagree",
    )
    add(
        "statement-subject-order",
        policy(statement() | {"subject": statement()["subject"][::-1]}),
        "SemanticsViolation",
        "subjects in another order",
    )
    add(
        "statement-unknown-field",
        policy(statement() | {"note": "x"}),
        "SchemaViolation",
        "a field beside the predicate",
    )
    # Age.
    add("age-expired", policy(_expired()), "Expired", "notAfter has passed")
    add(
        "age-rollback",
        policy(statement()),
        "RevisionTooOld",
        "an old revision, still well signed",
        trust="minimum",
    )
    add(
        "age-denied",
        policy(statement()),
        "Denied",
        "a policy that the trust file denies by id",
        trust="denied",
    )
    add(
        "age-no-such-day",
        policy(changed("issuedAt", to="2026-02-30T00:00:00Z")),
        "SemanticsViolation",
        "a day that is not",
    )
    add(
        "age-newline",
        policy(changed("issuedAt", to="2026-07-01T12:00:00Z\n")),
        "SchemaViolation",
        "a newline that $ lets pass",
    )
    # Size and syntax.
    add(
        "size-over-a-mebibyte",
        b" " * (1 << 20) + edited(lambda v: None),
        "ArtifactTooLarge",
        "one byte too many, and a valid artifact in it",
    )
    add("json-empty", b"", "ArtifactSyntax", "nothing")
    add("json-cut", edited(lambda v: None)[:-20], "ArtifactSyntax", "the end is missing")
    add("json-utf16", edited(lambda v: None).decode().encode("utf-16"), "ArtifactSyntax", "another encoding")
    add(
        "json-byte-order-mark",
        b"\xef\xbb\xbf" + edited(lambda v: None),
        "ArtifactSyntax",
        "a byte order mark",
    )
    add(
        "json-deep-bundle",
        b'{"mediaType":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "ArtifactSyntax",
        "nesting that ends a recursive parser",
    )
    add(
        "json-deep-payload",
        raw(b'"frames":9', b'"frames":' + deep),
        "ArtifactSyntax",
        "deep nesting below a good signature",
    )
    add(
        "json-duplicate-key-in-bundle",
        edited(lambda v: None).replace(b'{"dsseEnvelope":', b'{"mediaType":"x","dsseEnvelope":', 1),
        "ArtifactSyntax",
        "two media types: readers differ in which one counts",
    )
    add(
        "json-duplicate-key-in-payload",
        raw(b'"frames":9', b'"frames":9,"frames":81'),
        "ArtifactSyntax",
        "two values of a field",
    )
    add("json-nan", raw(b'"guidance":5', b'"guidance":NaN'), "ArtifactSyntax", "not a number")
    add("json-infinity", raw(b'"guidance":5', b'"guidance":Infinity'), "ArtifactSyntax", "infinity")
    add(
        "json-overflow",
        raw(b'"guidance":5', b'"guidance":1e999'),
        "ArtifactSyntax",
        "a number beyond a double",
    )
    add("json-minus-zero", raw(b'"guidance":5', b'"guidance":-0'), "ArtifactSyntax", "two spellings of zero")
    add(
        "json-float-for-int",
        raw(b'"frames":9', b'"frames":9.0'),
        "ArtifactSyntax",
        "an integer spelled as a float",
    )
    add("json-whitespace", raw(b'"frames":9', b'"frames": 9'), "ArtifactSyntax", "not canonical")
    add(
        "json-escape", raw(b'"float32"', b'"flo\\u0061t32"'), "ArtifactSyntax", "an escape that is not needed"
    )
    add("json-lone-surrogate", raw(b'"float32"', b'"\\ud800"'), "ArtifactSyntax", "half a character")
    add(
        "json-lone-surrogate-in-bundle",
        edited(lambda v: v["verificationMaterial"].__setitem__("\ud800", 1)),
        "ArtifactSyntax",
        "half a character as a field's name, before any signature is checked",
    )
    add("json-payload-not-base64", envelope("payload", "a"), "ArtifactSyntax", "the payload is not base64")
    add(
        "json-other-bundle-version",
        edited(lambda v: v.__setitem__("mediaType", MEDIA.replace("v0.3", "v0.4"))),
        "UnsupportedVersion",
        "a bundle of a later version",
    )
    add("json-no-bundle", b'{"weights":"model.safetensors"}', "SchemaViolation", "JSON, and no bundle")
    # Schema.
    add(
        "schema-unknown-field",
        policy(changed("shape", to=lambda s: s | {"framez": 9})),
        "SchemaViolation",
        "a field that is not known",
    )
    add("schema-missing-field", policy(without("quality")), "SchemaViolation", "no quality report")
    add("schema-null", policy(changed("name", to=None)), "SchemaViolation", "null for a name")
    add(
        "schema-null-for-an-optional-field",
        raw(b'"name":"attacked"', b'"name":"attacked","notAfter":null'),
        "SchemaViolation",
        "expiry spelled out as null",
    )
    add(
        "schema-text-for-number",
        policy(changed("shape", "frames", to="9")),
        "SchemaViolation",
        "text where a number belongs",
    )
    add(
        "schema-bool-for-number",
        policy(changed("shape", "frames", to=True)),
        "SchemaViolation",
        "true where a number belongs",
    )
    add("schema-negative-revision", policy(changed("revision", to=-1)), "SchemaViolation", "below its bound")
    add(
        "schema-coefficient-out-of-bounds",
        policy(changed("policy", "branches", 0, "predictor", 1, to=[1e9])),
        "SchemaViolation",
        "a coefficient that explodes",
    )
    add(
        "schema-name-with-control-character",
        policy(changed("name", to="a\x1b[2Jb")),
        "SchemaViolation",
        "a terminal escape in a name",
    )
    add(
        "schema-name-with-markup",
        policy(changed("name", to="<script>alert(1)</script>")),
        "SchemaViolation",
        "markup in a name",
    )
    add(
        "schema-text-turns-direction",
        policy(changed("budget", "requested", to="10\u202e01")),
        "SchemaViolation",
        "text that shows in another order",
    )
    add(
        "schema-ten-thousand-steps",
        policy(changed("sampler", "sigmas", to=[10_000 - k for k in range(10_001)])),
        "SchemaViolation",
        "an array over its bound",
    )
    # Paths.
    for name, path in {
        "path-parent": "../transformer/config.json",
        "path-parent-inside": "transformer/../../config.json",
        "path-absolute": "/etc/passwd.json",
        "path-backslash": "transformer\\..\\config.json",
        "path-drive": "C:/config.json",
        "path-control-character": "transformer/\x00config.json",
        "path-newline": "transformer/config.json\n",
        "path-empty-segment": "transformer//config.json",
        "path-dot": "./transformer/config.json",
        "path-tilde": "~/config.json",
    }.items():
        add(name, policy(variant_file(path)), "SchemaViolation", f"a bound file named {path!r}")
    for name in ("bin", "pt", "ckpt", "pkl"):
        add(
            f"path-pickle-{name}",
            policy(variant_file(f"transformer/model.{name}")),
            "UnsafeWeights",
            f"bound to a pickle, .{name}",
        )
    # Semantics.
    add(
        "semantics-mask-too-long",
        policy(changed("policy", "branches", 0, "mask", to=lambda m: [*m, False])),
        "SemanticsViolation",
        "mask and steps disagree",
    )
    add(
        "semantics-mask-starts-with-reuse",
        policy(changed("policy", "branches", 0, "mask", to=lambda m: [False, *m[1:]])),
        "SemanticsViolation",
        "nothing to reuse at step 0",
    )
    add(
        "semantics-nfe",
        policy(changed("budget", "nfe", to=2)),
        "SemanticsViolation",
        "a budget that the mask does not keep",
    )
    add(
        "semantics-branch-nfe",
        policy(changed("budget", "branches", "cond", to=2)),
        "SemanticsViolation",
        "a branch's budget that its mask does not keep",
    )
    add(
        "semantics-branch-twice",
        policy(changed("policy", "branches", 0, "names", to=["cond", "cond"])),
        "SemanticsViolation",
        "a branch with two policies",
    )
    add(
        "semantics-branch-unknown",
        policy(changed("policy", "branches", 0, "names", to=["cond", "other"])),
        "SemanticsViolation",
        "budget and policy name other branches",
    )
    add(
        "semantics-coefficients-where-computed",
        policy(changed("policy", "branches", 0, "predictor", 0, to=[1])),
        "SemanticsViolation",
        "a prediction for a computed step",
    )
    add(
        "semantics-coefficients-of-the-future",
        policy(changed("policy", "branches", 0, "predictor", 1, to=[1, 1, 1])),
        "SemanticsViolation",
        "more terms than computed steps before",
    )
    add(
        "semantics-no-coefficients",
        policy(changed("policy", "branches", 0, "predictor", 1, to=[])),
        "SemanticsViolation",
        "a reused step without a prediction",
    )
    add(
        "semantics-sigmas-too-few",
        policy(changed("sampler", "sigmas", to=lambda s: s[:-1])),
        "SemanticsViolation",
        "sigmas and steps disagree",
    )
    add(
        "semantics-sigmas-rise",
        policy(changed("sampler", "sigmas", to=lambda s: [s[0], s[2], s[1], *s[3:]])),
        "SemanticsViolation",
        "sigmas that rise",
    )
    add(
        "semantics-timesteps-too-many",
        policy(changed("sampler", "timesteps", to=lambda t: [*t, 0])),
        "SemanticsViolation",
        "timesteps and steps disagree",
    )
    add(
        "semantics-config-digest",
        policy(changed("sampler", "configDigest", to="sha256:" + "0" * 64)),
        "SemanticsViolation",
        "the digest of another sampler",
    )
    add(
        "semantics-config-control-character",
        policy(changed("sampler", "config", "solver_type", to="bh2\x1b[0m")),
        "SemanticsViolation",
        "a terminal escape in a setting",
    )
    add(
        "semantics-held-out-is-calibration",
        policy(changed("quality", "heldOut", to=statement()["predicate"]["quality"]["calibration"])),
        "SemanticsViolation",
        "quality measured on what was searched on",
    )
    add(
        "semantics-metric-twice",
        policy(changed("quality", "metrics", to=lambda m: m * 2)),
        "SemanticsViolation",
        "two values of one metric",
    )
    add(
        "semantics-variant-twice",
        policy(changed("model", "variants", to=lambda v: v * 2)),
        "SemanticsViolation",
        "two variants of one name",
    )
    add(
        "semantics-adapters-listed-none",
        policy(changed("model", "adapters", to={"rule": "listed"})),
        "SemanticsViolation",
        "adapters by a list that is empty",
    )
    add(
        "semantics-ends-before-it-begins",
        policy(_expired(not_after="2019-01-01T00:00:00Z")),
        "SemanticsViolation",
        "notAfter before issuedAt",
    )
    for name, (data, error, why) in reports().items():
        add(f"report-{name}", data, error, why)
    return found


def reports() -> dict[str, tuple[bytes, str, str]]:
    """Return name → (file, error, why) for quality reports that no measurement can give."""

    def metric(**fields: Any) -> bytes:
        return policy(changed("quality", "metrics", 0, to=lambda old: old | fields))

    def full(nfe: int, error: float) -> bytes:
        nothing = {"name": "latent-mse", "mean": error, "standardError": 0, "worst": error, "samples": 128}
        return policy(
            changed(
                "quality", "baselines", to=lambda b: [*b, {"name": "full", "nfe": nfe, "metrics": [nothing]}]
            )
        )

    def tolerance(value: Any) -> bytes:
        return policy(changed("quality", "replayTolerance", to=value))

    schema, semantics = "SchemaViolation", "SemanticsViolation"
    return {
        "missing-metrics": (policy(without("quality", "metrics")), schema, "a report that says nothing"),
        "nan": (raw(b'"mean":0.00014', b'"mean":NaN'), "ArtifactSyntax", "an error that is not a number"),
        "null": (metric(mean=None), schema, "an error that is null"),
        "text": (metric(mean="0.0001"), schema, "an error that is text"),
        "out-of-bounds": (metric(worst=1e300), schema, "an error beyond any bound"),
        "no-samples": (metric(samples=0), schema, "figures of no samples"),
        "negative-samples": (metric(samples=-128), schema, "figures of fewer than no samples"),
        "negative-standard-error": (metric(standardError=-1e-5), schema, "a spread below nothing"),
        "metric-with-markup": (metric(name="<b>psnr</b>"), schema, "markup in a metric's name"),
        "unit-with-escape": (metric(unit="dB\x1b[2J"), schema, "a terminal escape in a unit"),
        "unknown-figure": (metric(best=0), schema, "a figure that is not known"),
        "negative-held-out-size": (
            policy(changed("quality", "heldOut", "size", to=-1)),
            schema,
            "fewer than no prompts",
        ),
        "baseline-without-evaluations": (
            policy(changed("quality", "baselines", 0, "nfe", to=0)),
            schema,
            "a baseline that computed nothing",
        ),
        "tolerance-zero": (tolerance(0), schema, "figures that nobody can measure again"),
        "tolerance-negative": (tolerance(-0.02), schema, "a tolerance below nothing"),
        "tolerance-everything": (tolerance(1), schema, "a tolerance that any figure satisfies"),
        "tolerance-null": (tolerance(None), schema, "no tolerance, spelled out"),
        "negative-error": (metric(mean=-0.00014, worst=0.0001), semantics, "a squared error below nothing"),
        "worst-is-better": (
            metric(worst=0.0001),
            semantics,
            "a worst error below the mean, so that none is worse",
        ),
        "p95-beyond-worst": (metric(p95=0.1), semantics, "one in twenty worse than the worst"),
        "geometric-mean-above-mean": (metric(geometricMean=0.001), semantics, "means in the wrong order"),
        "geometric-mean-negative": (metric(geometricMean=-0.0001), semantics, "a negative geometric mean"),
        "more-samples-than-prompts": (
            metric(samples=129),
            semantics,
            "samples of prompts that are not there",
        ),
        "figures-of-no-prompts": (
            policy(changed("quality", "heldOut", "size", to=0)),
            semantics,
            "nothing was held out, and figures all the same",
        ),
        "full-run-below-budget": (full(2, 0), semantics, "a full run of fewer evaluations than the policy"),
        "full-run-differs-from-itself": (
            full(6, 0.5),
            semantics,
            "a full run with an error, to look good beside",
        ),
        "baseline-twice": (
            policy(changed("quality", "baselines", to=lambda b: b * 2)),
            semantics,
            "two results of one baseline",
        ),
        "baseline-metric-twice": (
            policy(changed("quality", "baselines", 0, "metrics", to=lambda m: m * 2)),
            semantics,
            "two values of a baseline's metric",
        ),
    }


def _expired(not_after: str = "2020-01-02T00:00:00Z") -> dict[str, Any]:
    value = changed("issuedAt", to="2020-01-01T00:00:00Z")
    value["predicate"]["notAfter"] = not_after
    return value


def weights() -> dict[str, tuple[bytes, Case]]:
    """Return name → (safetensors file, what it gets when its tensors are read)."""
    good = safetensors(WEIGHTS)
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = int.from_bytes(good[:8], "little")
    found = {
        "empty": (b"", "no header"),
        "pickle": (b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.", "a pickle under another name"),
        "zip": (b"PK\x03\x04" + b"\0" * 40, "a zip archive, as torch.save writes"),
        "header-too-long": ((1 << 40).to_bytes(8, "little") + good[8:], "a header longer than the file"),
        "header-not-json": (good[:8] + b"x" * header + good[8 + header :], "a header that is no JSON"),
        "header-deep": ((200_000).to_bytes(8, "little") + b"[" * 100_000 + b"]" * 100_000, "a header nested deep"),
        "header-duplicate": (_header(b'{"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'), "one tensor twice"),
        "header-a-list": (_header(b"[]"), "a header that is no object"),
        "hole": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [0], "data_offsets": [12, 12]}}), "bytes that no tensor has"),
        "overlap": (safetensors(WEIGHTS, **{"proj.bias": entry}), "two tensors in the same bytes"),
        "beyond-the-end": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [99], "data_offsets": [8, 404]}}), "a tensor beyond the end"),
        "trailing-bytes": (good + b"MZ", "bytes behind the last tensor"),
        "negative-offset": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}), "an offset before the data"),
        "shape-disagrees": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [7], "data_offsets": [8, 12]}}), "a shape that the bytes do not fill"),
        "unknown-dtype": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "PICKLE", "shape": [1], "data_offsets": [8, 12]}}), "a dtype that is not known"),
        "huge-shape": (safetensors(WEIGHTS, **{"proj.bias": {"dtype": "F32", "shape": [1 << 62, 1 << 62], "data_offsets": [8, 12]}}), "a product of extents that overflows"),
    }  # fmt: skip
    return {name: (data, Case("UnsafeWeights", why)) for name, (data, why) in found.items()}


def _header(text: bytes) -> bytes:
    return len(text).to_bytes(8, "little") + text


def models() -> dict[str, tuple[Callable[[Path], None], Case]]:
    """Return name → (what is done to a good model folder, what it then gets)."""

    def cut(folder: Path) -> None:
        (folder / SHARD).write_bytes(MODEL[SHARD][:-1])

    def flip(folder: Path) -> None:
        (folder / SHARD).write_bytes(MODEL[SHARD][:-1] + b"\x41")

    def metadata(folder: Path) -> None:
        (folder / SHARD).write_bytes(safetensors(WEIGHTS, __metadata__={"format": "pt"}))

    def linked(relative: str, target: str) -> Callable[[Path], None]:
        def change(folder: Path) -> None:
            (folder / relative).unlink()
            (folder / relative).symlink_to(target)

        return change

    def outside(folder: Path) -> None:
        beside = folder.with_name(f"{folder.name}.outside")
        (folder / "transformer").rename(beside)
        (folder / "transformer").symlink_to(beside)

    def snapshot(folder: Path) -> None:
        # A hub snapshot whose link leads not to a blob but to another file of the cache.
        (folder / "blobs").mkdir()
        (folder / "secret.json").write_bytes(MODEL[CONFIG])
        place = folder / "snapshots" / "rev"
        place.mkdir(parents=True)
        for part in ("transformer", "scheduler"):
            (folder / part).rename(place / part)
        (place / CONFIG).unlink()
        (place / CONFIG).symlink_to("../../../secret.json")

    def beside(name: str, data: bytes) -> Callable[[Path], None]:
        return lambda folder: (folder / "transformer" / name).write_bytes(data) and None

    def remove(relative: str) -> Callable[[Path], None]:
        return lambda folder: (folder / relative).unlink()

    def directory(folder: Path) -> None:
        (folder / CONFIG).unlink()
        (folder / CONFIG).mkdir()

    def pipe(folder: Path) -> None:
        (folder / CONFIG).unlink()
        os.mkfifo(folder / CONFIG)

    def swap(folder: Path) -> None:
        (folder / CONFIG).write_bytes(MODEL[SCHEDULER])
        (folder / SCHEDULER).write_bytes(MODEL[CONFIG])

    index = json.dumps({"weight_map": {"proj.weight": "evil.safetensors"}}).encode()
    pickle = b"\x80\x04N."
    return {
        "weights-changed": (flip, Case("WeightsMismatch", "a byte of the weights")),
        "weights-cut": (cut, Case("WeightsMismatch", "a download that was cut")),
        "weights-header-edited": (metadata, Case("WeightsMismatch", "the same tensors in another file")),
        "weights-missing": (remove(SHARD), Case("WeightsMissing", "no weights")),
        "config-missing": (remove(CONFIG), Case("WeightsMissing", "no configuration")),
        "config-swapped": (swap, Case("WeightsMismatch", "two files in each other's place")),
        "scheduler-changed": (
            lambda folder: (folder / SCHEDULER).write_bytes(b'{"shift": 9}') and None,
            Case("WeightsMismatch", "another sampler"),
        ),
        "link-absolute": (linked(CONFIG, "/etc/hostname"), Case("UnsafeWeights", "a link out of the folder")),
        "link-parent": (linked(CONFIG, "../../../valid.budc.json"), Case("UnsafeWeights", "a link out of the folder")),
        "link-loop": (linked(CONFIG, "config.json"), Case("WeightsMissing", "a link to itself")),
        "link-dangling": (linked(CONFIG, "gone.json"), Case("WeightsMissing", "a link to nothing")),
        "link-folder": (outside, Case("UnsafeWeights", "a folder that is a link out")),
        "link-device": (linked(CONFIG, "/dev/zero"), Case("UnsafeWeights", "a link to a device without end")),
        "snapshot-link-beside-blobs": (snapshot, Case("UnsafeWeights", "a hub snapshot that leads to no blob")),
        "folder-for-a-file": (directory, Case("UnsafeWeights", "a folder in place of a file")),
        "pipe-for-a-file": (pipe, Case("UnsafeWeights", "a named pipe in place of a file")),
        "rival-pickle": (beside("pytorch_model.bin", pickle), Case("UnsafeWeights", "a pickle beside the weights")),
        "rival-checkpoint": (beside("model.ckpt", pickle), Case("UnsafeWeights", "a pickle beside the weights")),
        "rival-shard": (beside("evil.safetensors", MODEL[SHARD]), Case("UnsafeWeights", "weights that are not listed")),
        "rival-index": (
            beside("diffusion_pytorch_model.safetensors.index.json", index),
            Case("UnsafeWeights", "an index that redirects to other weights"),
        ),
        "rival-onnx": (beside("model.onnx", b"\x08\x07"), Case("UnsafeWeights", "a graph that is not listed")),
        "rival-onnx-data": (beside("model.onnx.data", b"\0"), Case("UnsafeWeights", "external data that is not listed")),
    }  # fmt: skip


def pem(key: Any) -> str:
    """Return the public half as PEM."""
    return str(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def trusts() -> dict[str, str]:
    """Return name → trust file."""

    def entry(key: Any, more: str = "") -> str:
        return f'[[keys]]\npem = """\n{pem(key)}"""\n{more}'

    identity = "sha256:" + hashlib.sha256(payload_of(statement())).hexdigest()
    return {
        "default": entry(TRUSTED),
        "ecdsa": entry(P256),
        "two": "threshold = 2\n" + entry(TRUSTED) + entry(SECOND),
        "family": entry(TRUSTED, 'families = ["flux"]\n'),
        "minimum": "[minimum-revision]\nattacked = 2\n" + entry(TRUSTED),
        "denied": f'denied = ["{identity}"]\n' + entry(TRUSTED),
    }


def make(folder: Path) -> None:
    """Write the whole corpus into `folder`."""
    expected: dict[str, dict[str, Any]] = {"artifacts": {}, "weights": {}, "models": {}}
    for part in ("artifacts", "weights", "models", "trust"):
        shutil.rmtree(folder / part, ignore_errors=True)
        (folder / part).mkdir(parents=True)
    for name, text in trusts().items():
        (folder / "trust" / f"{name}.toml").write_text(text, encoding="utf-8")
    (folder / "valid.budc.json").write_bytes(policy(statement()))
    for name, (data, case) in artifacts().items():
        (folder / "artifacts" / f"{name}.budc.json").write_bytes(data)
        expected["artifacts"][name] = asdict(case)
    for name, (data, case) in weights().items():
        (folder / "weights" / f"{name}.safetensors").write_bytes(data)
        expected["weights"][name] = asdict(case)
    for name, (change, case) in {"good": (lambda _: None, None), **models()}.items():
        for relative, content in MODEL.items():
            (folder / "models" / name / relative).parent.mkdir(parents=True, exist_ok=True)
            (folder / "models" / name / relative).write_bytes(content)
        change(folder / "models" / name)
        if case is not None:
            expected["models"][name] = asdict(case)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", "utf-8")


if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
