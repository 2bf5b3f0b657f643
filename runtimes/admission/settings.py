"""Calibrated and actual settings of a run, compared one field at a time.

A difference is refused with the field and both values. Where the user allowed uncalibrated runs it is recorded, and
warned of once a run.
"""

import warnings
from collections.abc import Mapping

from budc.runtimes.sampling.families import FAMILIES
from budc.schema.errors import CalibrationMismatch
from budc.schema.policy import PolicyDocument


class UncalibratedWarning(UserWarning):
    """A run differs from what its policy was calibrated for, so the policy's quality report does not hold for it."""


class SettingsCheck:
    """Compares the settings of one run: refuses a difference (the default), or warns of it where `allow` is true.

    `differences` maps each field that differed to a sentence with both values. `how_to_allow` says what the user does
    to allow uncalibrated runs, where that is no argument of Python's.
    """

    def __init__(self, allow: bool = False, *, how_to_allow: str = "pass allow_uncalibrated=True") -> None:
        self.allow = allow
        self._how_to_allow = how_to_allow
        self.differences: dict[str, str] = {}

    def require(self, field: str, expected: object, actual: object, remedy: str = "") -> None:
        """Compare one field.

        Raises:
            CalibrationMismatch: the values differ and uncalibrated runs are not allowed.
        """
        if expected != actual:
            self.differ(field, f"the policy was calibrated for {expected}, this run has {actual}", remedy)

    def require_text_tokens(self, document: PolicyDocument, actual: int, remedy: str) -> None:
        """Compare the length of a text with the policy's, which is the most that a prompt has where none is padded.

        Raises:
            CalibrationMismatch: see `require`.
        """
        wanted = document.pipeline().shape.text_tokens
        family = FAMILIES.get(document.model.denoisers[0].class_name)
        padded = family is None or family.pads_text
        if wanted is not None and (padded or actual > wanted):
            self.require("text tokens", wanted, actual, remedy)

    def require_settings(
        self, prefix: str, differences: Mapping[str, tuple[object, object]], remedy: str
    ) -> None:
        """Compare the fields of a nested setting, given as name → (expected, actual)."""
        for name, (expected, actual) in differences.items():
            self.require(f"{prefix}.{name}", expected, actual, remedy)

    def differ(self, field: str, what: str, remedy: str = "") -> None:
        """Refuse or record a difference that the caller has found.

        Raises:
            CalibrationMismatch: uncalibrated runs are not allowed.
        """
        if not self.allow:
            raise CalibrationMismatch(
                f"{field}: {what}",
                remedy=remedy or f"use the calibrated {field}, or {self._how_to_allow} to run anyway",
            )
        if field not in self.differences:
            self.differences[field] = f"{field}: {what}"
            warnings.warn(f"uncalibrated run: {field}: {what}", UncalibratedWarning, stacklevel=2)

    def begin_run(self) -> None:
        """Forget the differences of the run before."""
        self.differences.clear()
