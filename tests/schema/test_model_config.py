from pathlib import Path
from typing import Any

import pytest

from budc.schema.errors import WeightsMismatch
from budc.schema.model_config import Difference, first_difference, listed_settings, read_config, settings_of

CONFIG: dict[str, Any] = {
    "_class_name": "Wan",
    "_name_or_path": "/a",
    "heads": 4,
    "eps": 1e-6,
    "patch": [1, 2, 2],
    "pos": None,
}


def no_defaults() -> dict[str, object]:
    raise AssertionError("asked for defaults that nothing needs")


def test_the_librarys_notes_are_no_settings() -> None:
    assert settings_of(CONFIG) == {"heads": 4, "eps": 1e-6, "patch": [1, 2, 2], "pos": None}


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"heads": 4.0, "patch": (1, 2, 2)}, None),
        ({"heads": 5}, Difference("heads", 4, 5)),
        ({"heads": True}, Difference("heads", 4, True)),
        ({"patch": [1, 2]}, Difference("patch", [1, 2, 2], [1, 2])),
        ({"eps": 1e-5, "patch": []}, Difference("eps", 1e-6, 1e-5)),
    ],
)
def test_settings_are_compared_by_value(change: dict[str, object], difference: Difference | None) -> None:
    assert first_difference(settings_of(CONFIG), settings_of(CONFIG) | change, no_defaults) == difference


@pytest.mark.parametrize(
    ("extra", "known", "same"),
    [
        ({"bias": None}, {}, True),
        ({"bias": True}, {"bias": True}, True),
        ({"bias": True}, {"bias": False}, False),
        ({"bias": True}, {}, False),
        ({"bias": None}, {"bias": True}, False),
    ],
)
def test_a_setting_that_one_side_lacks_is_its_default(
    extra: dict[str, object], known: dict[str, object], same: bool
) -> None:
    settings = settings_of(CONFIG)
    for one, other in ((settings, settings | extra), (settings | extra, settings)):
        assert (first_difference(one, other, lambda: known) is None) is same


def test_what_an_artifact_cannot_list_is_not_listed_in_part() -> None:
    assert listed_settings(CONFIG) == settings_of(CONFIG)
    assert listed_settings(CONFIG | {"quantization": {"bits": 8}}) is None
    assert listed_settings({"_class_name": "Wan"}) is None


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1, "a": 2}', '{"a": NaN}'])
def test_a_file_that_is_no_configuration_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(WeightsMismatch, match=r"^transformer/config\.json is not"):
        read_config(path, "transformer/config.json")
