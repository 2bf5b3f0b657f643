"""Attacks on the quality report: figures that no measurement can give."""

from __future__ import annotations

from typing import Any

from attack_corpus.forge import (
    changed,
    policy,
    raw,
    without,
)


def metric(**fields: Any) -> bytes:
    """Return the policy with fields of its first metric replaced."""
    return policy(changed("quality", "metrics", 0, to=lambda old: old | fields))


def full(nfe: int, error: float) -> bytes:
    """Return the policy with a baseline `full`."""
    nothing = {"name": "latent-mse", "mean": error, "standardError": 0, "worst": error, "samples": 128}
    return policy(
        changed("quality", "baselines", to=lambda b: [*b, {"name": "full", "nfe": nfe, "metrics": [nothing]}])
    )


def tolerance(value: Any) -> bytes:
    """Return the policy with this tolerance of a replay."""
    return policy(changed("quality", "replayTolerance", to=value))


def malformed() -> dict[str, tuple[bytes, str, str]]:
    """Return name → (file, error, why) for reports with fields out of bounds."""
    schema = "SchemaViolation"
    return {
        "missing-metrics": (policy(without("quality", "metrics")), schema, "a report that says nothing"),
        "nan": (raw(b'"mean":0.00014', b'"mean":NaN'), "ArtifactSyntax", "an error that is not a number"),
        "null": (metric(mean=None), schema, "an error that is null"),
        "text": (metric(mean="0.0001"), schema, "an error that is text"),
        "out-of-bounds": (metric(worst=1e300), schema, "an error beyond any bound"),
        "no-samples": (metric(samples=0), schema, "figures of no samples"),
        "negative-samples": (metric(samples=-128), schema, "figures of fewer than no samples"),
        "negative-standard-error": (metric(standardError=-1e-5), schema, "a spread below nothing"),
        "metric-with-markup": (metric(name="<b>psnr</b>"), schema, "markup in a metric's name"),
        "unit-with-escape": (metric(unit="dB\x1b[2J"), schema, "a terminal escape in a unit"),
        "unknown-figure": (metric(best=0), schema, "a figure that is not known"),
        "negative-held-out-size": (
            policy(changed("quality", "heldOut", "size", to=-1)),
            schema,
            "fewer than no prompts",
        ),
        "baseline-without-evaluations": (
            policy(changed("quality", "baselines", 0, "nfe", to=0)),
            schema,
            "a baseline that computed nothing",
        ),
        "tolerance-zero": (tolerance(0), schema, "figures that nobody can measure again"),
        "tolerance-negative": (tolerance(-0.02), schema, "a tolerance below nothing"),
        "tolerance-everything": (tolerance(1), schema, "a tolerance that any figure satisfies"),
        "tolerance-null": (tolerance(None), schema, "no tolerance, spelled out"),
    }


def impossible() -> dict[str, tuple[bytes, str, str]]:
    """Return name → (file, error, why) for reports whose figures no measurement can give."""
    semantics = "SemanticsViolation"
    return {
        "negative-error": (metric(mean=-0.00014, worst=0.0001), semantics, "a squared error below nothing"),
        "worst-is-better": (
            metric(worst=0.0001),
            semantics,
            "a worst error below the mean, so that none is worse",
        ),
        "p95-beyond-worst": (metric(p95=0.1), semantics, "one in twenty worse than the worst"),
        "geometric-mean-above-mean": (metric(geometricMean=0.001), semantics, "means in the wrong order"),
        "geometric-mean-negative": (metric(geometricMean=-0.0001), semantics, "a negative geometric mean"),
        "more-samples-than-prompts": (
            metric(samples=129),
            semantics,
            "samples of prompts that are not there",
        ),
        "figures-of-no-prompts": (
            policy(changed("quality", "heldOut", "size", to=0)),
            semantics,
            "nothing was held out, and figures all the same",
        ),
        "full-run-below-budget": (full(2, 0), semantics, "a full run of fewer evaluations than the policy"),
        "full-run-differs-from-itself": (
            full(6, 0.5),
            semantics,
            "a full run with an error, to look good beside",
        ),
        "baseline-twice": (
            policy(changed("quality", "baselines", to=lambda b: b * 2)),
            semantics,
            "two results of one baseline",
        ),
        "baseline-metric-twice": (
            policy(changed("quality", "baselines", 0, "metrics", to=lambda m: m * 2)),
            semantics,
            "two values of a baseline's metric",
        ),
    }
