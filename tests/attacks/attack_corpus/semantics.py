"""Attacks on what a document says: file names, and policies that contradict themselves."""

from __future__ import annotations

from attack_corpus.forge import (
    Add,
    aged,
    changed,
    policy,
    statement,
    variant_file,
)


def paths(add: Add) -> None:
    """File names that lead out of the model's folder."""
    for name, path in {
        "path-parent": "../transformer/config.json",
        "path-parent-inside": "transformer/../../config.json",
        "path-absolute": "/etc/passwd.json",
        "path-backslash": "transformer\\..\\config.json",
        "path-drive": "C:/config.json",
        "path-control-character": "transformer/\x00config.json",
        "path-newline": "transformer/config.json\n",
        "path-empty-segment": "transformer//config.json",
        "path-dot": "./transformer/config.json",
        "path-tilde": "~/config.json",
    }.items():
        add(name, policy(variant_file(path)), "SchemaViolation", f"a bound file named {path!r}")
    for name in ("bin", "pt", "ckpt", "pkl"):
        add(
            f"path-pickle-{name}",
            policy(variant_file(f"transformer/model.{name}")),
            "UnsafeWeights",
            f"bound to a pickle, .{name}",
        )


def semantics(add: Add) -> None:
    """Policies that no runtime can carry out."""
    add(
        "semantics-mask-too-long",
        policy(changed("policy", "branches", 0, "mask", to=lambda m: [*m, False])),
        "SemanticsViolation",
        "mask and steps disagree",
    )
    add(
        "semantics-mask-starts-with-reuse",
        policy(changed("policy", "branches", 0, "mask", to=lambda m: [False, *m[1:]])),
        "SemanticsViolation",
        "nothing to reuse at step 0",
    )
    add(
        "semantics-nfe",
        policy(changed("budget", "nfe", to=2)),
        "SemanticsViolation",
        "a budget that the mask does not keep",
    )
    add(
        "semantics-branch-nfe",
        policy(changed("budget", "branches", "cond", to=2)),
        "SemanticsViolation",
        "a branch's budget that its mask does not keep",
    )
    add(
        "semantics-branch-twice",
        policy(changed("policy", "branches", 0, "names", to=["cond", "cond"])),
        "SemanticsViolation",
        "a branch with two policies",
    )
    add(
        "semantics-branch-unknown",
        policy(changed("policy", "branches", 0, "names", to=["cond", "other"])),
        "SemanticsViolation",
        "budget and policy name other branches",
    )
    add(
        "semantics-coefficients-where-computed",
        policy(changed("policy", "branches", 0, "predictor", 0, to=[1])),
        "SemanticsViolation",
        "a prediction for a computed step",
    )
    add(
        "semantics-coefficients-of-the-future",
        policy(changed("policy", "branches", 0, "predictor", 1, to=[1, 1, 1])),
        "SemanticsViolation",
        "more terms than computed steps before",
    )
    add(
        "semantics-no-coefficients",
        policy(changed("policy", "branches", 0, "predictor", 1, to=[])),
        "SemanticsViolation",
        "a reused step without a prediction",
    )


def sampling(add: Add) -> None:
    """Samplers that contradict themselves."""
    add(
        "semantics-sigmas-too-few",
        policy(changed("sampler", "sigmas", to=lambda s: s[:-1])),
        "SemanticsViolation",
        "sigmas and steps disagree",
    )
    add(
        "semantics-sigmas-rise",
        policy(changed("sampler", "sigmas", to=lambda s: [s[0], s[2], s[1], *s[3:]])),
        "SemanticsViolation",
        "sigmas that rise",
    )
    add(
        "semantics-timesteps-too-many",
        policy(changed("sampler", "timesteps", to=lambda t: [*t, 0])),
        "SemanticsViolation",
        "timesteps and steps disagree",
    )
    add(
        "semantics-config-digest",
        policy(changed("sampler", "configDigest", to="sha256:" + "0" * 64)),
        "SemanticsViolation",
        "the digest of another sampler",
    )
    add(
        "semantics-config-control-character",
        policy(changed("sampler", "config", "solver_type", to="bh2\x1b[0m")),
        "SemanticsViolation",
        "a terminal escape in a setting",
    )


def repeated(add: Add) -> None:
    """Things that are named twice or that belong together."""
    add(
        "semantics-held-out-is-calibration",
        policy(changed("quality", "heldOut", to=statement()["predicate"]["quality"]["calibration"])),
        "SemanticsViolation",
        "quality measured on what was searched on",
    )
    add(
        "semantics-metric-twice",
        policy(changed("quality", "metrics", to=lambda m: m * 2)),
        "SemanticsViolation",
        "two values of one metric",
    )
    add(
        "semantics-variant-twice",
        policy(changed("model", "variants", to=lambda v: v * 2)),
        "SemanticsViolation",
        "two variants of one name",
    )
    add(
        "semantics-adapters-listed-none",
        policy(changed("model", "adapters", to={"rule": "listed"})),
        "SemanticsViolation",
        "adapters by a list that is empty",
    )
    add(
        "semantics-ends-before-it-begins",
        policy(aged("2020-01-01T00:00:00Z", not_after="2019-01-01T00:00:00Z")),
        "SemanticsViolation",
        "notAfter before issuedAt",
    )
