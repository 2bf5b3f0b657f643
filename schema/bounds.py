"""What is required of an evaluation, in its calibrated setting: `psnr>=30,psnr.worst>=25,n>=32`.

    METRIC>=NUMBER         the policy's mean over the prompts; >, <=, < likewise
    METRIC.worst>=NUMBER   the value of its worst prompt
    n>=NUMBER              how many prompts were measured

All must hold, and in one evaluation. A bound on the wrong side of a metric is an error: it would refuse good policies.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from budc.schema.errors import UsageError
from budc.schema.evaluation import EvaluationDocument, MethodResult
from budc.schema.report_names import CALIBRATED, HIGHER_IS_BETTER, METRIC_TITLES, POLICY

PROMPTS: Final = "n"
_WORST: Final = ".worst"
_PART = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(>=|<=|>|<)\s*(\S+)")
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{1,20})?(?:[eE][+-]?[0-9]{1,3})?")
_HOLDS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}


@dataclass(frozen=True)
class Bound:
    """One bound: `figure` is a metric, a metric with ".worst", or "n"."""

    figure: str
    sign: str
    number: float

    @property
    def metric(self) -> str:
        """The metric that it is about, or "n"."""
        return self.figure.removesuffix(_WORST)

    @property
    def title(self) -> str:
        """What sentences call the figure: "PSNR", "worst PSNR", or "n"."""
        title = METRIC_TITLES.get(self.metric, self.metric)
        return title if self.figure == self.metric else f"worst {title}"

    @property
    def in_words(self) -> str:
        """The bound in a sentence: "PSNR >= 30"."""
        return f"{self.title} {self.sign} {self.number:.15g}"

    def holds(self, value: float) -> bool:
        """Whether a value keeps within it."""
        return _HOLDS[self.sign](value, self.number)

    def __str__(self) -> str:
        """Return it as it is written in options and files: "psnr>=30"."""
        return f"{self.figure}{self.sign}{self.number:.15g}"


def in_words(bounds: Iterable[Bound]) -> str:
    """Return bounds as a sentence has them: "PSNR >= 30, n >= 32"."""
    return ", ".join(bound.in_words for bound in bounds)


def parse_bounds(text: str, where: str) -> tuple[Bound, ...]:
    """Return the bounds in `text`, at least one.

    Args:
        text: as the user wrote it.
        where: where that was, for error messages: a flag, an argument, a line of a file.

    Raises:
        UsageError: it is not of the form that this module describes; the message begins with `where`.
    """
    bounds = tuple(_parsed(part.strip(), where) for part in text.split(","))
    figures = [bound.figure for bound in bounds]
    for bound in bounds:
        if figures.count(bound.figure) > 1:
            raise UsageError(
                f"{where}: {bound.title} is bounded twice", remedy="give one bound for each figure"
            )
    return bounds


def _parsed(part: str, where: str) -> Bound:
    matched = _PART.fullmatch(part)
    if matched is None:
        raise UsageError(
            f"{where}: {part[:100]!r} is not METRIC>=NUMBER",
            remedy="for example psnr>=30,psnr.worst>=25,n>=32",
        )
    figure, sign, digits = matched.groups()
    number = float(digits) if _NUMBER.fullmatch(digits) else math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"{where}: {part[:100]}: {digits[:100]!r} is no number", remedy="for example psnr>=30"
        )
    bound = Bound(figure, sign, number)
    if bound.metric == PROMPTS:
        if figure != PROMPTS or sign not in (">=", ">") or not number.is_integer() or number < 1:
            raise UsageError(
                f"{where}: {part[:100]}: n is the number of prompts", remedy="ask for a number, such as n>=32"
            )
        return bound
    _check_direction(bound, where)
    return bound


def _check_direction(bound: Bound, where: str) -> None:
    higher = HIGHER_IS_BETTER.get(bound.metric)
    if higher is None:
        near = difflib.get_close_matches(bound.metric.lower(), (*HIGHER_IS_BETTER, PROMPTS), n=1)
        known = f"one of {', '.join(HIGHER_IS_BETTER)}, or n for the number of prompts"
        raise UsageError(
            f"{where}: there is no metric named {bound.metric[:100]!r}",
            remedy=f"did you mean {near[0]}?" if near else known,
        )
    if higher != bound.sign.startswith(">"):
        better = "higher" if higher else "lower"
        sign = (">" if higher else "<") + bound.sign[1:]
        raise UsageError(
            f"{where}: {bound}: {better} {METRIC_TITLES[bound.metric]} is better, so this refuses good policies",
            remedy=f"{bound.figure}{sign}{bound.number:.15g}",
        )


def unmet(bounds: Sequence[Bound], document: EvaluationDocument) -> str | None:
    """Return which bound an evaluation does not meet, and by which figure; None if it meets all."""
    setting = document.setting(CALIBRATED)
    measured = setting.method(POLICY) if setting is not None else None
    if setting is None or measured is None:
        return "it has no figures of the policy in the calibrated setting"
    for bound in bounds:
        if bound.metric == PROMPTS:
            value: float | None = _prompts(bounds, measured, setting.prompts.size)
        else:
            value = _value(bound, measured)
        if value is None:
            return f"it has no {METRIC_TITLES[bound.metric]}, of which {bound.in_words} is required"
        if not bound.holds(value):
            return f"{bound.title} is {value:.6g}, and {bound.in_words} is required"
    return None


def _value(bound: Bound, measured: MethodResult) -> float | None:
    metric = measured.metric(bound.metric)
    if metric is None:
        return None
    return metric.worst if bound.figure.endswith(_WORST) else metric.mean


def _prompts(bounds: Sequence[Bound], measured: MethodResult, prompts: int) -> int:
    """Return on how many prompts all metrics that are asked for were measured."""
    metrics = (measured.metric(bound.metric) for bound in bounds)
    return min([prompts, *(metric.samples for metric in metrics if metric is not None)])
