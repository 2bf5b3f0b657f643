import contextlib
import json
import math
import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from budc.schema import canonical
from budc.schema.errors import ArtifactSyntax, ArtifactTooLarge

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": 2}, b'{"a":2,"b":1}'),
        ([5.0, 1e20, 1e21, 1e-6, 1e-7, 0.1], b"[5,100000000000000000000,1e+21,0.000001,1e-7,0.1]"),
        ("é\n\u20ac", '"é\\n€"'.encode()),
        ((True, None), b"[true,null]"),
        ({"\ufb33": 1, "\U0001f600": 2}, '{"\U0001f600":2,"\ufb33":1}'.encode()),
    ],
    ids=["keys", "numbers", "text", "tuple", "keys-by-utf16"],
)
def test_encoding_follows_rfc_8785(value: object, expected: bytes) -> None:
    assert canonical.encode(value) == expected


@settings(max_examples=150, deadline=None, derandomize=True)
@given(JSON)
def test_decoding_an_encoding_gives_the_value(value: object) -> None:
    data = canonical.encode(value)
    assert canonical.decode(data) == value
    assert canonical.encode(canonical.decode(data)) == data


@pytest.mark.parametrize(
    "value",
    [math.nan, [math.inf], 2**53, "\ud800", {"\ud800": 1}, {1: 2}, b"bytes", {1, 2}],
    ids=["nan", "infinite", "large-int", "surrogate", "surrogate-key", "int-key", "bytes", "set"],
)
def test_values_without_a_canonical_form_are_refused(value: object) -> None:
    with pytest.raises(ArtifactSyntax):
        canonical.encode(value)


def test_the_message_names_the_place_of_a_number_that_has_no_canonical_form() -> None:
    with pytest.raises(ArtifactSyntax, match=r"inf .* at `\$\.metrics\[1\]\.mean`"):
        canonical.encode({"metrics": [{"mean": 1.0}, {"mean": math.inf}], "seed": 2**60})


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"nul", b"[1,]", b'{"a":1}x', b"NaN", b"[Infinity]", b"-Infinity", b"1e999", b"9" * 5000,
        b'{"a":1,"a":1}', b'{"a":1,"\\u0061":1}', b"\xff", b'"\xed\xa0\x80"', b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"), b"[" * 33 + b"]" * 33, b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 500_000,
        b'"\\', b'"\n"', b'"\\ud800"', b'{"\\uDC00":1}',
    ],
)  # fmt: skip
def test_what_is_not_strict_json_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactSyntax):
        canonical.parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b" 1", b"1\n", b"1.0", b"-0", b"-0.0", b"1e2", b"0.10", b"9007199254740993", b'{"b":1,"a":1}',
        b'"\\u0061"', b'"\\/"', b"[1, 2]", b"0.1000000000000000055511151231257827", b"1E5",
    ],
)  # fmt: skip
def test_other_spellings_of_canonical_json_are_refused(data: bytes) -> None:
    canonical.parse(data)
    with pytest.raises(ArtifactSyntax):
        canonical.decode(data)


def test_the_message_names_the_byte_where_the_spelling_differs() -> None:
    with pytest.raises(ArtifactSyntax, match="from byte 5 on"):
        canonical.decode(b'{"a": 1}')


def test_brackets_in_strings_are_not_depth() -> None:
    text = "[{" * 100 + '\\"' + "[" * 100
    assert canonical.decode(canonical.encode({"a": text})) == {"a": text}
    assert canonical.parse(b"[" * 32 + b"]" * 32) == json.loads("[" * 32 + "]" * 32)


def test_the_size_cap_comes_before_everything() -> None:
    with pytest.raises(ArtifactTooLarge):
        canonical.parse(b"\xff" * (canonical.MAX_BYTES + 1))
    assert canonical.parse(b" " * (canonical.MAX_BYTES - 1) + b"1") == 1


# What a quadratic reader chokes on, by the number of bytes.
HOSTILE: dict[str, Callable[[int], bytes]] = {
    "escaped-quotes": lambda size: b'"' + b'\\"' * (size // 2),
    "quotes": lambda size: b'"' * size,
    "backslashes": lambda size: b'"' + b"\\" * size,
    "key-repeated-last": lambda size: (
        b"{" + b",".join(b'"%011x":0' % key for key in range(size // 16)) + b',"%011x":0}' % (size // 16 - 1)
    ),
    "key-repeated-first": lambda size: (
        b'{"00000000000":0,' + b",".join(b'"%011x":0' % key for key in range(size // 16)) + b"}"
    ),
    "digits": lambda size: b"9" * size,
    "fraction": lambda size: b"0." + b"1" * size,
    "exponent": lambda size: b"1e" + b"9" * size,
    "bad-surrogates": lambda size: b'"' + b"\\ud83d" * (size // 6) + b'"',
    "closing-brackets": lambda size: b"]" * size,
    "long-keys": lambda size: b"{" + b",".join(b'"%01000d":0' % key for key in range(size // 1004)) + b"}",
    "long-key-above-numbers": lambda size: (
        b'{"' + b"k" * (size // 2) + b'":[' + b"12345678," * (size // 18) + b"0]}"
    ),
}


def seconds(data: bytes) -> float:
    """Processor time of judging `data`; the least of three, as others use the machine too."""

    def once() -> float:
        start = time.process_time()
        with contextlib.suppress(ArtifactSyntax):
            canonical.decode(data)
        return time.process_time() - start

    return min(once() for _ in range(3))


@pytest.mark.parametrize("name", HOSTILE)
def test_any_text_is_judged_in_time_proportional_to_its_size(name: str) -> None:
    quarter, whole = (seconds(HOSTILE[name](size)) for size in (1 << 18, (1 << 20) - 2000))
    assert whole < 9 * quarter + 0.1, "4 is proportional, 16 is quadratic"
    assert whole < 4, "a processor that is four times slower than one of 2020 has 4 s"


def test_the_path_of_a_bad_number_is_made_in_time_proportional_to_the_document() -> None:
    value = {"k" * 100_000: [0.0] * 100_000 + [math.inf]}
    start = time.process_time()
    with pytest.raises(ArtifactSyntax):
        canonical.encode(value)
    assert time.process_time() - start < 4


def test_digest_is_of_the_canonical_bytes() -> None:
    expected = "sha256:d3626ac30a87e6f7a6428233b3c68299976865fa5508e4267c5415c76af7a772"
    assert canonical.digest({"b": 1.0, "a": 2}) == expected  # printf '{"a":2,"b":1}' | sha256sum
