"""What the tests of the published schemas share: values to try at every place of a document."""

from collections.abc import Iterator
from typing import Any

Place = tuple[str | int, ...]

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


def check_strictness(schema: dict[str, Any]) -> None:
    """Check that a schema is strict about every object, string, number and array."""

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

    walk(schema, "#")
