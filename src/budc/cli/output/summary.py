"""What a person wants to know of a policy: mask, quality against the baselines, and what the search cost."""

from __future__ import annotations

from collections.abc import Sequence

from budc.cli.output.tables import MISSING, number, strip, table, wrapped
from budc.schema.artifact import Artifact
from budc.schema.errors import printable
from budc.schema.policy import Metric, PolicyDocument
from budc.schema.predictor import Predictor
from budc.schema.report_names import FEWER_STEPS, LATENT_MSE, PSNR, UNIFORM

UNSIGNED = "UNSIGNED: nobody vouches for this file, and it runs only with --allow-unsigned"


def claimed_signers(artifact: Artifact) -> str:
    """Return the keys that the file says signed it, which proves nothing, or that it is unsigned."""
    if not artifact.signed:
        return UNSIGNED
    names = [
        signature.keyid or artifact.hint or "a key that it does not name" for signature in artifact.signatures
    ]
    return "\n".join(printable(name) for name in names)


def masks(document: PolicyDocument) -> list[tuple[str, str]]:
    """Return for each group of branches its mask over a ruler, its computed steps, and its predictor."""
    pairs = []
    groups = document.policy.branches
    for branch in groups:
        mask, predictor = branch.step_mask(), branch.step_predictor()
        of = f" ({', '.join(branch.names)})" if len(groups) > 1 else ""
        pairs.append((f"mask{of}", strip(mask)))
        pairs.append((f"computed{of}", wrapped(str(step) for step in mask.compute_steps)))
        pairs.append((f"predictor{of}", _predictor(predictor, plain=Predictor.plain_reuse(mask))))
    return pairs


def _predictor(predictor: Predictor, plain: Predictor) -> str:
    if predictor == plain:
        return "plain reuse of the newest residual"
    rows = [
        f"{step}: {' '.join(f'{value:+.4g}' for value in row)}" for step, row in enumerate(predictor) if row
    ]
    return f"by step, newest residual first\n{wrapped(rows, gap='   ')}"


def budget(document: PolicyDocument) -> str:
    """Return the evaluations per branch beside the steps and what was asked for."""
    asked, steps = document.budget, document.sampler.steps
    counts = set(asked.branches.values())
    if len(counts) == 1:
        each = f"per branch ({', '.join(asked.branches)})" if len(asked.branches) > 1 else ""
    else:
        each = f"({', '.join(f'{name} {count}' for name, count in asked.branches.items())})"
    spent, full = sum(asked.branches.values()), steps * len(asked.branches)
    return printable(
        f"{asked.nfe} of {steps} steps {each} (asked for {asked.requested}), {full / spent:.2g}x fewer"
    )


def quality(document: PolicyDocument) -> str:
    """Return the held-out table: the policy and every baseline by the same metrics."""
    report = document.quality
    methods = [("this policy", document.budget.nfe, report.metrics)]
    methods += [(item.name, item.nfe, item.metrics) for item in report.baselines]
    others = list(
        dict.fromkeys(
            metric.name for _, _, metrics in methods for metric in metrics if metric.name != LATENT_MSE
        )
    )
    units = {metric.name: metric.unit for _, _, metrics in methods for metric in metrics if metric.unit}
    headers = ["method", "NFE", f"{LATENT_MSE} gmean", "mean", "± s.e.", "p95", "worst"]
    headers += [f"{name} {units.get(name, '')}".strip() for name in others]
    return table(headers, ([name, str(nfe), *_row(metrics, others)] for name, nfe, metrics in methods))


def _row(metrics: Sequence[Metric], others: Sequence[str]) -> list[str]:
    by_name = {metric.name: metric for metric in metrics}
    latent = by_name.get(LATENT_MSE)
    if latent is None:
        shown = [MISSING] * 5
    else:
        values = (latent.geometric_mean, latent.mean, latent.standard_error, latent.p95, latent.worst)
        shown = [number(value) for value in values]
    return shown + [number(by_name[name].mean) if name in by_name else MISSING for name in others]


def measured_on(document: PolicyDocument) -> str:
    """Return which prompts the quality table was measured on, and which the search saw."""
    report = document.quality
    stated = (
        f"; to be measured again to {100 * report.replay_tolerance:g} %" if report.replay_tolerance else ""
    )
    return printable(
        f"{report.held_out.size} held-out prompts; searched on {report.calibration.size} others "
        f"for the objective {report.objective}{stated}"
    )


def choices(document: PolicyDocument) -> list[tuple[str, str]]:
    """Return what was decided on prompts that the search had not seen."""
    settings = document.search.settings
    notes = [str(settings[key]) for key in sorted(settings) if key.startswith("choice")]
    return [("chosen", "\n".join(printable(note) for note in notes))] if notes else []


def beaten(document: PolicyDocument) -> str:
    """Return a sentence where a few steps of the solver alone lose less, and what to do; else nothing."""
    ours = _latent(document.quality.metrics)
    few = next((item for item in document.quality.baselines if item.name == FEWER_STEPS), None)
    theirs = _latent(few.metrics) if few else None
    if ours is None or theirs is None or few is None or document.sampler.steps == few.nfe or theirs >= ours:
        return ""
    return (
        f"{few.nfe} plain steps of {document.sampler.scheduler} lose less than this policy at the same NFE "
        f"(held-out {LATENT_MSE} {number(theirs)} against {number(ours)}, geometric mean): "
        "compile with --steps auto --align, which makes such steps the policy where they win"
    )


def _latent(metrics: Sequence[Metric]) -> float | None:
    return next((metric.geometric_mean for metric in metrics if metric.name == LATENT_MSE), None)


def pareto(artifacts: Sequence[Artifact]) -> str:
    """Return a sweep as a table: what every budget buys, beside its baselines."""
    rows = []
    for artifact in artifacts:
        document = artifact.document
        baselines = {item.name: _latent(item.metrics) for item in document.quality.baselines}
        metrics = {metric.name: metric for metric in document.quality.metrics}
        rows.append(
            [
                str(document.budget.nfe),
                f"{document.sampler.steps}",
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
        f"{LATENT_MSE} gmean",
        "p95",
        "psnr dB",
        "uniform",
        "fewer steps",
        "forwards",
        "artifact",
    ]
    return table(headers, rows)


def cost(document: PolicyDocument) -> str:
    """Return what the search was and what it spent."""
    found = document.search
    return printable(
        f"{found.algorithm}, seed {found.seed}: {found.candidates:,} candidates scored, "
        f"{found.forwards:,} transformer forwards spent"
    )
