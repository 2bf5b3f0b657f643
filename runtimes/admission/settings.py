"""Calibrated and actual settings of a run, compared one field at a time.

A difference is refused, naming the field and both values. Where the user allowed uncalibrated runs it is
warned of once a run and remembered instead, so that a result can be marked.
"""

import warnings
from collections.abc import Mapping

from budc.schema.errors import CalibrationMismatch


class UncalibratedWarning(UserWarning):
    """A run differs from what its policy was calibrated for; the quality report does not speak for it."""


class SettingsCheck:
    """Judges differences for one run: refuse (the default), or warn where `allow` is true.

    `differences` maps each field that differed to a sentence with both values.
    """

    def __init__(self, allow: bool = False) -> None:
        self.allow = allow
        self.differences: dict[str, str] = {}

    def require(self, field: str, expected: object, actual: object, remedy: str = "") -> None:
        """Compare one field.

        Raises:
            CalibrationMismatch: the values differ and uncalibrated runs are not allowed.
        """
        if expected != actual:
            self.differ(field, f"the policy was calibrated for {expected}, this run has {actual}", remedy)

    def require_settings(
        self, prefix: str, differences: Mapping[str, tuple[object, object]], remedy: str
    ) -> None:
        """Judge the fields of a nested setting, given as name → (expected, actual)."""
        for name, (expected, actual) in differences.items():
            self.require(f"{prefix}.{name}", expected, actual, remedy)

    def differ(self, field: str, what: str, remedy: str = "") -> None:
        """Judge a difference that is already known.

        Raises:
            CalibrationMismatch: uncalibrated runs are not allowed.
        """
        if not self.allow:
            raise CalibrationMismatch(
                f"{field}: {what}",
                remedy=remedy or f"use the calibrated {field}, or pass allow_uncalibrated=True to run anyway",
            )
        if field not in self.differences:
            self.differences[field] = f"{field}: {what}"
            warnings.warn(f"uncalibrated run: {field}: {what}", UncalibratedWarning, stacklevel=2)

    def begin_run(self) -> None:
        """Forget the differences of the run before."""
        self.differences.clear()
