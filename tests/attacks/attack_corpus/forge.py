"""Forging: the valid artifact and its model, and the ways to change and sign them.

Nothing of budc is used here, so that the reader is not tested against itself.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import rfc8785
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, derive_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TESTS = Path(__file__).parents[2]
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


class Add(Protocol):
    """Adds a case under a name of its own; `rest` are further fields of `Case`."""

    def __call__(self, name: str, data: bytes, error: str, why: str, **rest: Any) -> None: ...


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
    golden = json.loads((TESTS / "golden" / "v1.0" / "unsigned.budc.json").read_text("utf-8"))
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


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """Return the statement with one value of its predicate replaced; `to` may be a function of the old one."""
    value = copy.deepcopy(statement())
    holder: Any = value["predicate"]
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = to(holder[path[-1]]) if callable(to) else to
    if path[:1] == ("model",):
        bound(value)
    if path[:2] == ("sampler", "config"):
        config = value["predicate"]["sampler"]["config"]
        value["predicate"]["sampler"]["configDigest"] = (
            "sha256:" + hashlib.sha256(rfc8785.dumps(config)).hexdigest()
        )
    return value


def shared(*experts: tuple[str, Any, Any], denoisers: int | None = None) -> dict[str, Any]:
    """Return the statement for several denoisers: by default as many as (name, first step, guidance) and one more.

    They are called transformer, transformer_2, …, and are alike.
    """
    count = len(experts) + 1 if denoisers is None else denoisers
    names = ["transformer", *(f"transformer_{index}" for index in range(2, count + 1))]
    value = changed("model", "denoisers", to=lambda d: [d[0] | {"name": name} for name in names])
    if experts:
        value["predicate"]["sampler"]["experts"] = [
            {"denoiser": name, "firstStep": step, "guidance": guidance} for name, step, guidance in experts
        ]
    return value


def without(*path: str | int) -> dict[str, Any]:
    """Return the statement without one field of its predicate."""
    value = copy.deepcopy(statement())
    holder: Any = value["predicate"]
    for key in path[:-1]:
        holder = holder[key]
    del holder[path[-1]]
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
    return signed(payload_of(value))


def signed(payload: bytes) -> bytes:
    """Return a payload, signed by the trusted key."""
    return bundle(payload, TRUSTED)


def raw(old: bytes, new: bytes) -> bytes:
    """Return the valid payload with some bytes replaced, signed by the trusted key."""
    payload = payload_of(statement())
    assert payload.count(old) >= 1, old
    return signed(payload.replace(old, new, 1))


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


def aged(issued_at: str, not_after: str) -> dict[str, Any]:
    """Return the statement, good from one moment to another."""
    value = changed("issuedAt", to=issued_at)
    value["predicate"]["notAfter"] = not_after
    return value
