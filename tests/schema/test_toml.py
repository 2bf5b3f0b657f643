import time

import pytest

from budc.schema.toml import MAX_KEY_PARTS, parse_toml


def dotted(parts: int) -> str:
    return ".".join(["a"] * parts)


@pytest.mark.parametrize(
    "text",
    [
        f"{dotted(MAX_KEY_PARTS)} = 1",
        f'a = "{dotted(1000)}"',
        f"a = '{dotted(1000)}'",
        f'a = """\n{dotted(1000)}\n"quoted" """',
        f"a = '''\n{dotted(1000)}\n'''",
        f'a = "\\"{dotted(1000)}"',
        f"a = 1 # {dotted(1000)}",
        f"a = [{'0.5, ' * 1000}]",
        f"a = [{', '.join(['1979-05-27T07:32:00.999Z'] * 100)}]",
    ],
)
def test_dots_that_are_not_in_keys_do_not_count(text: str) -> None:
    assert "a" in parse_toml(text.encode())


@pytest.mark.parametrize(
    "text",
    [
        f"{dotted(MAX_KEY_PARTS + 1)} = 1",
        f"[{dotted(MAX_KEY_PARTS + 1)}]",
        f"[[ {dotted(MAX_KEY_PARTS + 1)} ]]",
        f"a = {{ {dotted(MAX_KEY_PARTS + 1)} = 1 }}",
        " . ".join(['"a"'] * 40) + " = 1",
        "\t.\t".join(["'a'"] * 40) + " = 1",
        f'a = [""" " """, {{{dotted(40)} = 1, b = " "}}]',
        f'# "\n{dotted(40)} = 1',
        "a = " + "[" * 5000,
        "a = " + "{a = " * 5000,
        "a = '\0'",
        "a = 1\na = 2",
        "a",
    ],
)
def test_what_is_refused_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_toml(text.encode())


def test_other_encodings_are_refused() -> None:
    with pytest.raises(ValueError, match="utf-8"):
        parse_toml("a = 1".encode("utf-16"))


@pytest.mark.parametrize(
    "text", [dotted(500_000) + " = 1", 'a = """' + '\\"""' * 200_000, "a = " + '"' * 1_000_000]
)
def test_a_mebibyte_is_judged_without_delay(text: str) -> None:
    """A key of 100,000 parts takes tomllib minutes."""
    start = time.process_time()
    with pytest.raises(ValueError, match=r"."):
        parse_toml(text.encode())
    assert time.process_time() - start < 4
