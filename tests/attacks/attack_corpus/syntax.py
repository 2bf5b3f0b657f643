"""Attacks on how a document is written: size, JSON, and the schema."""

from __future__ import annotations

from attack_corpus.forge import (
    MEDIA,
    Add,
    changed,
    edited,
    envelope,
    policy,
    raw,
    without,
)


def syntax(add: Add) -> None:
    """Bytes that are not one canonical document of a sane size."""
    deep = b"[" * 40 + b"]" * 40
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
        "json-string-without-end",
        b'{"mediaType":"' + b'\\"' * (1 << 17),
        "ArtifactSyntax",
        "escaped quotes without an end: quadratic for a parser that tries a string at each of them",
    )
    keys = b",".join(b'"%x":0' % key for key in range(20_000))
    add(
        "json-duplicate-key-last",
        b"{" + keys + b',"4e1f":0}',
        "ArtifactSyntax",
        "the last of many keys, twice: quadratic for a reader that counts each of them",
    )
    add(
        "json-duplicate-key-in-payload",
        raw(b'"frames":9', b'"frames":9,"frames":81'),
        "ArtifactSyntax",
        "two values of a field",
    )


def values(add: Add) -> None:
    """JSON values with two spellings, or that the format does not have."""
    add("json-nan", raw(b'"guidance":5', b'"guidance":NaN'), "ArtifactSyntax", "not a number")
    add("json-nul", raw(b'"float32"', b'"flo\0t32"'), "ArtifactSyntax", "a NUL in a text")
    add(
        "json-number-without-end",
        raw(b'"guidance":5', b'"guidance":' + b"5" * 100_000),
        "ArtifactSyntax",
        "more digits than any number needs",
    )
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


def schema(add: Add) -> None:
    """Fields that are unknown, missing, of another type or out of bounds."""
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
