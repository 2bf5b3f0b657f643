"""The settings of a scheduler that a policy is bound to, as JSON values."""

import inspect
import math
from collections.abc import Mapping
from typing import Any

import numpy as np


def relevant_config(scheduler: Any) -> dict[str, Any]:
    """Return the scheduler's settings as JSON values: every constructor argument, nothing private.

    JSON has no infinity. Settings that are infinite, as some are by default, are left out, and must then be at their
    defaults where the policy runs.
    """
    return {name: value for name, value in _settings(scheduler).items() if not _is_infinite(value)}


def config_differences(expected: Mapping[str, Any], scheduler: Any) -> dict[str, tuple[object, object]]:
    """Return name → (expected, actual) for every setting of `scheduler` that is not as in `expected`.

    A setting that is not in `expected` (added by a later release) must be at its default.
    """
    actual, parameters = _settings(scheduler), _constructor(scheduler)
    wanted = {name: _plain(parameter.default) for name, parameter in parameters.items() if name in actual} | {
        name: _plain(value) for name, value in expected.items()
    }
    return {
        name: (value, actual.get(name, "nothing"))
        for name, value in wanted.items()
        if name not in actual or actual[name] != value
    }


def _settings(scheduler: Any) -> dict[str, Any]:
    parameters = _constructor(scheduler)
    return {name: _plain(value) for name, value in scheduler.config.items() if name in parameters}


def _is_infinite(value: Any) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _constructor(scheduler: Any) -> Mapping[str, inspect.Parameter]:
    parameters = inspect.signature(type(scheduler).__init__).parameters
    return {name: p for name, p in parameters.items() if name != "self" and p.kind is not p.VAR_KEYWORD}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
