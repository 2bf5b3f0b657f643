"""Settings of a network, as the library that saved it writes them into `config.json`.

    >>> settings_of({"_class_name": "WanTransformer3DModel", "num_layers": 30, "image_dim": None})
    {'num_layers': 30, 'image_dim': None}

Keys that begin with an underscore are the library's own notes: the class, the version that saved the file, where it was
loaded from. They are no settings. A newer version of a library also writes what an older one left out, at the class's
default, so a setting that one side lacks is compared as its default, and as null where the default is not known.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from budc.schema import canonical
from budc.schema.errors import ArtifactError, WeightsMismatch
from budc.schema.fields import ConfigValue, Name
from budc.schema.tensors import open_weights

NOTE = "_"
"""What the names of a library's own notes begin with."""
CLASS = "_class_name"

Defaults = Callable[[str], Mapping[str, object]]
"""Returns the defaults of a class's settings, by its name; empty where they are not known here."""


class Difference(NamedTuple):
    """A setting that is not what it should be."""

    name: str
    expected: object
    actual: object


def unknown_defaults(_class_name: str) -> Mapping[str, object]:
    """Know no class."""
    return {}


def read_config(path: Path, name: str) -> Mapping[str, object]:
    """Return what a configuration file says, which messages call `name`.

    Raises:
        WeightsMissing: it cannot be read.
        WeightsMismatch: it is not a JSON object.
    """
    with open_weights(path) as file:
        data = file.read(canonical.MAX_BYTES + 1)
    try:
        config = canonical.parse(data, what=name)
    except ArtifactError as error:
        raise WeightsMismatch(str(error), remedy="download it again") from error
    if not isinstance(config, dict):
        raise WeightsMismatch(f"{name} is not a JSON object", remedy="download it again")
    return config


def settings_of(config: Mapping[str, object]) -> dict[str, object]:
    """Return a configuration without the library's own notes."""
    return {name: value for name, value in config.items() if not name.startswith(NOTE)}


def listed_settings(config: Mapping[str, object]) -> dict[str, ConfigValue] | None:
    """Return the settings as an artifact lists them; None if one of them is of a kind that it cannot list."""
    try:
        return msgspec.convert(settings_of(config), dict[Name, ConfigValue]) or None
    except msgspec.ValidationError:
        return None


def first_difference(
    expected: Mapping[str, object], actual: Mapping[str, object], defaults: Callable[[], Mapping[str, object]]
) -> Difference | None:
    """Return the first setting, in order of their names, that differs; None where all agree.

    `defaults` is asked only where one side lacks a setting that the other one has.
    """
    for name in sorted(expected.keys() | actual.keys()):
        known = {} if name in expected and name in actual else defaults()
        wanted, found = (side.get(name, known.get(name)) for side in (expected, actual))
        if not _same(wanted, found):
            return Difference(name, wanted, found)
    return None


def _same(one: object, other: object) -> bool:
    try:
        return canonical.encode(one) == canonical.encode(other)
    except ArtifactError:
        return False
