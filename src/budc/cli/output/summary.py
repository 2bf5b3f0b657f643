"""Parts of a policy's page: budget, masks, quality against the baselines, and what the search cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from budc.cli.output.metric_labels import metric_label
from budc.cli.output.tables import MISSING, number, strip, table, wrapped
from budc.runtimes.sampling.rules import fixed_rows
from budc.schema.bounds import in_words, parse_bounds
from budc.schema.errors import UsageError
from budc.schema.plural import counted
from budc.schema.predictor import Predictor
from budc.schema.printable import printable
from budc.schema.report_names import FEWER_STEPS, LATENT_MSE, PSNR, UNIFORM

if TYPE_CHECKING:
    from budc.compiler.evaluation.report import LoopTimes
    from budc.schema.artifact import Artifact
    from budc.schema.policy import Metric, PolicyDocument, Quality

UNSIGNED = (
    "UNSIGNED: nobody vouches for this file, and it runs only with --allow-unsigned; "
    "`budc sign FILE --key KEY` signs it"
)


def claimed_signers(artifact: Artifact) -> str:
    """Return the keys that the file says signed it, which proves nothing, or that it is unsigned."""
    if not artifact.signed:
        return UNSIGNED
    names = [
        signature.keyid or artifact.hint or "a key that it does not name" for signature in artifact.signatures
    ]
    return "\n".join(printable(name) for name in names)


def masks(document: PolicyDocument, *, verbose: bool = False) -> list[tuple[str, str]]:
    """Return for each group of branches its mask over a ruler, its computed steps, and its predictor.

    Of that the coefficients only if `verbose`.
    """
    pairs = []
    groups = document.policy.branches
    for branch in groups:
        mask, predictor = branch.step_mask(), branch.step_predictor()
        names = f" ({', '.join(branch.names)})" if len(groups) > 1 else ""
        pairs.append((f"mask{names}", strip(mask)))
        pairs.append((f"computed{names}", wrapped(str(step) for step in mask.compute_steps)))
        plain = predictor == Predictor.plain_reuse(mask)
        linear = predictor == tuple(fixed_rows("linear", mask))
        shown = (
            _coefficients(predictor)
            if verbose and not plain
            else _predictor(predictor, plain=plain, linear=linear)
        )
        pairs.append((f"predictor{names}", shown))
    return pairs


def _predictor(predictor: Predictor, *, plain: bool, linear: bool) -> str:
    """Return how steps are predicted, in words."""
    if plain:
        return "plain reuse of the newest residual"
    if linear:
        return "linear forecast from the two newest cached tensors"
    reused = [row for row in predictor if row]
    most = counted(max(map(len, reused), default=0), "cached tensor")
    return f"fitted coefficients of up to {most}, at {counted(len(reused), 'step')}; --verbose lists them"


def _coefficients(predictor: Predictor) -> str:
    rows = [
        f"{step}: {' '.join(f'{value:+.4g}' for value in row)}" for step, row in enumerate(predictor) if row
    ]
    return f"by step, newest residual first\n{wrapped(rows, gap='   ')}"


def budget(document: PolicyDocument) -> str:
    """Return the evaluations per branch beside the steps and what was asked for."""
    budget, steps = document.budget, document.sampler.steps
    counts = budget.branches
    if len(set(counts.values())) > 1:
        by_branch = f"({', '.join(f'{name} {count}' for name, count in counts.items())})"
    else:
        by_branch = f"per branch ({', '.join(counts)})" if len(counts) > 1 else ""
    factor = steps * len(counts) / sum(counts.values())
    return printable(
        f"{budget.nfe} of {steps} steps {by_branch} (asked for {_asked(budget.requested)}), {factor:.2g}x fewer"
    )


def _asked(requested: str) -> str:
    """Return what was asked for: a bound in words, a number of evaluations or a time as it was written."""
    try:
        return in_words(parse_bounds(requested, "budget"))
    except UsageError:
        return requested


def quality(document: PolicyDocument) -> str:
    """Return the held-out table: the policy and every baseline by the same metrics."""
    return report_table(document.quality, document.budget.nfe)


def report_table(report: Quality, nfe: int) -> str:
    """Return the table of a report on a policy of `nfe` evaluations."""
    methods = [("this policy", nfe, report.metrics)]
    methods += [(item.name, item.nfe, item.metrics) for item in report.baselines]
    others = list(
        dict.fromkeys(
            metric.name for _, _, metrics in methods for metric in metrics if metric.name != LATENT_MSE
        )
    )
    units = {metric.name: metric.unit for _, _, metrics in methods for metric in metrics if metric.unit}
    headers = ["method", "NFE", f"{LATENT_MSE} gmean", "mean", "± s.e.", "p95", "worst"]
    headers += [f"{metric_label(name).title} {units.get(name, '')}".strip() for name in others]
    return table(headers, ([name, str(nfe), *_row(metrics, others)] for name, nfe, metrics in methods))


def _row(metrics: Sequence[Metric], others: Sequence[str]) -> list[str]:
    by_name = {metric.name: metric for metric in metrics}
    latent = by_name.get(LATENT_MSE)
    if latent is None:
        cells = [MISSING] * 5
    else:
        values = (latent.geometric_mean, latent.mean, latent.standard_error, latent.p95, latent.worst)
        cells = [number(value) for value in values]
    return cells + [number(by_name[name].mean) if name in by_name else MISSING for name in others]


def measured_on(document: PolicyDocument) -> str:
    """Return which prompts the quality table was measured on, and which the search saw."""
    report = document.quality
    tolerance = (
        f"; to be measured again to {100 * report.replay_tolerance:g} %" if report.replay_tolerance else ""
    )
    return printable(
        f"{counted(report.held_out.size, 'held-out prompt')}; searched on {_searched_on(document)} "
        f"for the objective {report.objective}{tolerance}"
    )


def _searched_on(document: PolicyDocument) -> str:
    """Return how many others were used: a smaller effort takes some of those that were given."""
    given, settings = document.quality.calibration.size, document.search.settings
    stages = [settings.get(stage) for stage in ("fit", "judge")]
    used = sum(stage for stage in stages if type(stage) is int)
    return f"{used} of {counted(given, 'other')}" if 0 < used < given else counted(given, "other")


def choices(document: PolicyDocument) -> list[tuple[str, str]]:
    """Return what was decided on prompts that the search had not seen."""
    settings = document.search.settings
    notes = [str(settings[key]) for key in sorted(settings) if key.startswith("choice")]
    return [("chosen", "\n".join(printable(note) for note in notes))] if notes else []


def beaten(document: PolicyDocument) -> str:
    """Return a warning where as many plain steps lose less than the policy, and what to do; else an empty text."""
    policy = _latent(document.quality.metrics)
    fewer = next((item for item in document.quality.baselines if item.name == FEWER_STEPS), None)
    plain = _latent(fewer.metrics) if fewer else None
    if policy is None or plain is None or fewer is None:
        return ""
    if document.sampler.steps == fewer.nfe or plain >= policy:
        return ""
    return (
        f"{fewer.nfe} plain steps of {document.sampler.scheduler} lose less than this policy at the same NFE "
        f"(held-out {LATENT_MSE} {number(plain)} against {number(policy)}, geometric mean): "
        + (
            "take a larger budget, or so many steps without a cache"
            if document.target is not None
            else "compile with --steps auto --align, which makes such steps the policy where they win"
        )
    )


def _latent(metrics: Sequence[Metric]) -> float | None:
    return next((metric.geometric_mean for metric in metrics if metric.name == LATENT_MSE), None)


def pareto(artifacts: Sequence[Artifact], loops: Sequence[LoopTimes | None]) -> str:
    """Return a sweep as a table: what every budget buys, beside its baselines, and what its loop took of the full's."""
    rows = []
    for artifact, loop in zip(artifacts, loops, strict=True):
        document = artifact.document
        baselines = {item.name: _latent(item.metrics) for item in document.quality.baselines}
        metrics = {metric.name: metric for metric in document.quality.metrics}
        rows.append(
            [
                str(document.budget.nfe),
                f"{document.sampler.steps}",
                MISSING if loop is None else f"{loop.policy / loop.full:.0%}",
                number(metrics[LATENT_MSE].geometric_mean),
                number(metrics[LATENT_MSE].p95),
                *([number(metrics[PSNR].mean)] if PSNR in metrics else [MISSING]),
                number(baselines.get(UNIFORM)),
                number(baselines.get(FEWER_STEPS)),
                f"{document.search.forwards:,}",
                str(artifact.path),
            ]
        )
    headers = [
        "NFE",
        "steps",
        "time",
        f"{LATENT_MSE} gmean",
        "p95",
        "PSNR dB",
        "uniform",
        "fewer steps",
        "forwards",
        "artifact",
    ]
    return table(headers, rows)


def cost(document: PolicyDocument) -> str:
    """Return what the search was and what it spent."""
    search = document.search
    proxy, there = search.settings.get("proxy"), search.settings.get("proxyForwards")
    also = "" if proxy is None else f", and {there} at {proxy}, where the masks were searched"
    return printable(
        f"{search.algorithm}, seed {search.seed}: {counted(search.candidates, 'candidate')} scored, "
        f"{counted(search.forwards, 'transformer forward')} spent{also}"
    )
