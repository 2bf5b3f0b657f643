"""The kinds of values in a policy document, each with its bounds, and the base of its parts.

`budc.schema.policy` puts them together.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Final

from msgspec import Meta, Struct

from budc.schema.mask import MAX_STEPS

# \Z and not $: Python's $ also matches before a trailing newline.
_HIDDEN = "\\x00-\\x1f\\x7f-\\x9f\\u200b-\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ufeff"
_SEGMENT = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._+=@-]+"
MAX_MAGNITUDE: Final = 1e15
_COUNT = 10**15

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"\A[A-Za-z0-9_][A-Za-z0-9._-]*\Z")]
"""ASCII letters, digits, dot, underscore and dash; the first one neither dot nor dash."""

Text = Annotated[str, Meta(max_length=1024, pattern=rf"\A[^{_HIDDEN}]*\Z")]
"""One line of free text without control, zero-width or direction-changing characters."""

Prompt = Annotated[str, Meta(max_length=8192, pattern=rf"\A[^{_HIDDEN}]*\Z")]
"""The same, as long as a prompt may be."""

Digest = Annotated[str, Meta(max_length=71, pattern=r"\Asha256:[0-9a-f]{64}\Z")]
"""A digest with its algorithm, "sha256:<64 hex digits>"."""

HexDigest = Annotated[str, Meta(max_length=64, pattern=r"\A[0-9a-f]{64}\Z")]
"""The sha256 of a file as 64 hex digits, as in-toto subjects write it."""

Path = Annotated[str, Meta(min_length=1, max_length=512, pattern=rf"\A{_SEGMENT}(?:/{_SEGMENT})*\Z")]
"""A file below the model folder: relative, "/" between segments, no "..", nothing that needs quoting."""

Timestamp = Annotated[
    str, Meta(max_length=20, pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
]
"""RFC 3339 in UTC to the second, "2026-07-01T12:00:00Z"."""

Number = Annotated[float, Meta(ge=-MAX_MAGNITUDE, le=MAX_MAGNITUDE)]
Positive = Annotated[int, Meta(ge=1, le=_COUNT)]
Count = Annotated[int, Meta(ge=0, le=_COUNT)]
StepCount = Annotated[int, Meta(ge=1, le=MAX_STEPS)]
Pixels = Annotated[int, Meta(ge=1, le=65536)]
Guidance = Annotated[float, Meta(ge=-1000, le=1000)]
Integer = Annotated[int, Meta(ge=-_COUNT, le=_COUNT)]
Scalar = bool | Integer | Number | Text | None
# Strings in a scheduler config have no pattern here; `budc.schema.semantics` refuses hidden characters instead.
# Reason: msgspec 0.22 frees a pattern twice, at exit, if a union holds both a str with a pattern and a list.
ConfigScalar = bool | Integer | Number | Annotated[str, Meta(max_length=1024)] | None
ConfigValue = ConfigScalar | Annotated[Sequence[ConfigScalar], Meta(max_length=1000)]
Settings = Annotated[Mapping[Name, Scalar], Meta(max_length=256)]


class Strict(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True
):
    """Base of all parts: immutable, no unknown fields, camelCase, unset fields left out."""
