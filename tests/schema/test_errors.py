import re
from pathlib import Path

import pytest

from budc.schema.errors import BudcError, SchemaViolation, Unsigned
from budc.schema.printable import MESSAGE_LIMIT, printable

SPEC = Path(__file__).parents[2] / "docs" / "spec" / "artifact-v1.md"


def tree(base: type[BudcError] = BudcError) -> list[type[BudcError]]:
    return [base, *(kind for child in base.__subclasses__() for kind in tree(child))]


def test_every_class_has_an_exit_code_and_a_remedy_of_its_own() -> None:
    codes = [error.exit_code for error in tree()]
    remedies = [error.default_remedy for error in tree()]
    assert len(set(codes)) == len(codes)
    assert len(set(remedies)) == len(remedies)
    assert all(
        0 < code < 64 and remedy and "\n" not in remedy for code, remedy in zip(codes, remedies, strict=True)
    )


def test_exit_codes_of_a_family_begin_with_the_digit_of_its_base() -> None:
    for child in BudcError.__subclasses__():
        assert all(error.exit_code // 10 == child.exit_code // 10 for error in tree(child))


def test_the_specification_lists_every_class_with_its_exit_code() -> None:
    listed = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", SPEC.read_text("utf-8"), re.MULTILINE))
    assert listed == {error.__name__: str(error.exit_code) for error in tree()}


def test_a_remedy_can_be_given_or_is_the_class_default() -> None:
    assert Unsigned("x").remedy == Unsigned.default_remedy
    assert Unsigned("x", remedy="y").remedy == "y"


@pytest.mark.parametrize(
    "text",
    [
        "a\nb",
        "a\x1b[31mb",
        "a\u202eb",
        "a\u200bb",
        "a\x00b",
        "a\ud800b",
        "a\u2028b",
        "a\x9bb",
        "a\u00adb",
        "a\u2060b",
        "a\U000e0041b",
        "a\u180eb",
        "a\u034fb",
        "a\u3164b",
        "a\ufe0fb",
        "a\U000e0100b",
    ],
)
def test_messages_are_one_line_without_characters_that_act_on_a_terminal(text: str) -> None:
    message = str(SchemaViolation(text, remedy=text))
    assert message == "a?[31mb" if "[" in text else message == "a?b"
    message.encode("utf-8")


def test_long_messages_are_cut() -> None:
    assert len(str(SchemaViolation("x" * 10_000))) == MESSAGE_LIMIT
    assert printable("x" * 600) == "x" * 600
    assert printable("abcdef", limit=4) == "abc…"
