"""Attacks on evaluations: figures that nobody measured, of other policies and settings, by keys of another role.

Every one lies beside the valid artifact, under a trust file that requires `psnr>=30,n>=4` of evaluators.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

from attack_corpus.forge import (
    SECOND,
    STRANGER,
    TRUSTED,
    Add,
    bundle,
    changed,
    fingerprint,
    flipped,
    payload_of,
    statement,
)

PSNRS = [28, 30, 32, 34]
KIND = "urn:budc:evaluation:v1"


def policy_digest(value: dict[str, Any]) -> str:
    """Return the policy id of a statement, without its algorithm."""
    return hashlib.sha256(payload_of(value)).hexdigest()


def evaluation(of: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the statement of a valid evaluation of the valid policy, or of another one."""
    of = statement() if of is None else of
    policy, digest = of["predicate"], policy_digest(of)
    metric = {"name": "psnr", "mean": 31, "standardError": 1, "worst": 28, "samples": 4}
    method = {
        "name": "policy",
        "title": "policy",
        "nfe": policy["budget"]["nfe"],
        "forwards": 6,
        "metrics": [metric],
        "samples": {"psnr": PSNRS},
    }
    setting = {
        "name": "calibrated",
        **{name: policy["sampler"][name] for name in ("scheduler", "configDigest", "steps", "guidance")},
        "shape": policy["shape"],
        "prompts": {"digest": "sha256:" + "7" * 64, "size": 4},
        "methods": [method],
    }
    predicate = {
        "schemaVersion": "1.0",
        "policy": f"sha256:{digest}",
        "policyName": policy["name"],
        "issuedAt": "2026-07-02T12:00:00Z",
        "device": "cpu",
        "versions": {"budc": "0.1.0"},
        "settings": [setting],
    }
    subject = [{"name": policy["name"], "digest": {"budc.policy.v1": digest}}]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": predicate,
        "predicateType": KIND,
        "subject": subject,
    }


def edited(*path: str | int, to: Any) -> dict[str, Any]:
    """Return the statement with one value replaced; `to` may be a function of the old one."""
    value: Any = copy.deepcopy(evaluation())
    holder = value
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = to(holder[path[-1]]) if callable(to) else to
    return dict(value)


def signed(value: dict[str, Any], *keys: Any) -> bytes:
    """Return a statement, signed by the evaluator, or by others."""
    return bundle(payload_of(value), *(keys or (SECOND,)))


def raw(old: bytes, new: bytes) -> bytes:
    """Return the valid payload with some bytes replaced, signed by the evaluator."""
    payload = payload_of(evaluation())
    assert payload.count(old) >= 1, old
    return bundle(payload.replace(old, new, 1), SECOND)


def turned(edit: Callable[[dict[str, Any]], None]) -> bytes:
    """Return the valid evaluation with its envelope changed."""
    return bundle(payload_of(evaluation()), SECOND, edit=lambda value: edit(value["dsseEnvelope"]))


SETTING = ("predicate", "settings", 0)
METHOD = (*SETTING, "methods", 0)
METRIC = (*METHOD, "metrics", 0)


def evaluators(add: Add) -> None:
    """Signatures that do not make figures trusted."""
    good = evaluation()
    add("stranger", signed(good, STRANGER), "UntrustedKey", "whoever likes to")
    add("publisher", signed(good, TRUSTED), "UntrustedKey", "the publisher praises its own policy")
    add("unsigned", bundle(payload_of(good)), "Unsigned", "nobody")
    add("plain", json.dumps(good["predicate"]).encode(), "Unsigned", "figures without a signature")

    def names(envelope: dict[str, Any]) -> None:
        envelope["signatures"][0]["keyid"] = fingerprint(SECOND)

    claimed = bundle(payload_of(good), STRANGER, edit=lambda value: names(value["dsseEnvelope"]))
    add("stranger-claims-evaluator", claimed, "SignatureInvalid", "a key id proves nothing")

    def flip(envelope: dict[str, Any]) -> None:
        envelope["signatures"][0]["sig"] = flipped(envelope["signatures"][0]["sig"])

    def swap(envelope: dict[str, Any]) -> None:
        envelope["payload"] = json.loads(signed(edited("predicate", "device", to="gpu")))["dsseEnvelope"][
            "payload"
        ]

    add("bit-flipped", turned(flip), "SignatureInvalid", "one bit of the signature")
    add("payload-swapped", turned(swap), "SignatureInvalid", "another content under an old signature")
    add(
        "over-other-type",
        bundle(payload_of(good), SECOND, kind="text/plain"),
        "WrongPayloadType",
        "another type",
    )
    add(
        "other-family", signed(good), "UntrustedKey", "an evaluator of other models", trust="evaluator-family"
    )
    add(
        "denied",
        signed(good),
        "Denied",
        "an evaluation that was found to be wrong",
        trust="evaluation-denied",
    )


def kinds(add: Add) -> None:
    """Statements that are no evaluation of the policy."""
    add("a-policy", signed(statement()), "WrongPayloadType", "a policy that an evaluator's key signed")
    add(
        "as-a-policy",
        signed(edited("predicateType", to="urn:budc:policy:v1")),
        "WrongPayloadType",
        "another name",
    )
    add("of-a-policy", signed(statement() | {"predicateType": KIND}), "SchemaViolation", "another content")
    add(
        "next-major",
        signed(edited("predicateType", to="urn:budc:evaluation:v2")),
        "UnsupportedVersion",
        "later",
    )
    add("next-minor", signed(edited("predicate", "schemaVersion", to="1.1")), "UnsupportedVersion", "later")
    add("a-list", bundle(b"[]", SECOND), "WrongPayloadType", "no statement")
    twin = changed("revision", to=lambda revision: revision + 1)
    add(
        "of-another-revision",
        signed(evaluation(twin)),
        "NotEvaluated",
        "replayed for a policy that is not this one",
    )
    other = policy_digest(twin)
    add(
        "subject-of-another",
        signed(edited("subject", 0, "digest", "budc.policy.v1", to=other)),
        "SemanticsViolation",
        "about one policy, of another",
    )
    add(
        "predicate-of-another",
        signed(edited("predicate", "policy", to=f"sha256:{other}")),
        "SemanticsViolation",
        "of one policy, about another",
    )
    add(
        "subject-of-another-name",
        signed(edited("subject", 0, "name", to="x")),
        "SemanticsViolation",
        "two names",
    )
    by_file = {"sha256": policy_digest(statement())}
    add(
        "subject-by-file",
        signed(edited("subject", 0, "digest", to=by_file)),
        "SchemaViolation",
        "no file has it",
    )
    add("subject-twice", signed(edited("subject", to=lambda s: s * 2)), "SchemaViolation", "two subjects")
    add("subject-none", signed(edited("subject", to=[])), "SchemaViolation", "about nothing")
    add(
        "unknown-field",
        signed(edited("predicate", to=lambda p: p | {"grade": "A"})),
        "SchemaViolation",
        "unknown",
    )


def texts(add: Add) -> None:
    """Bytes that are not one canonical document, and text that acts on whoever shows it."""
    deep = b"[" * 40 + b"]" * 40
    add("json-nan", raw(b'"mean":31', b'"mean":NaN'), "ArtifactSyntax", "no figure at all")
    add("json-infinity", raw(b'"mean":31', b'"mean":1e999'), "ArtifactSyntax", "beyond every bound")
    add("json-null", raw(b'"mean":31', b'"mean":null'), "SchemaViolation", "no figure at all")
    add("json-text", raw(b'"mean":31', b'"mean":"31"'), "SchemaViolation", "a figure in words")
    add("json-huge", raw(b'"mean":31', b'"mean":1e+300'), "SchemaViolation", "a figure out of bounds")
    twice = raw(b'"mean":31', b'"mean":31,"mean":99')
    add("json-duplicate-key", twice, "ArtifactSyntax", "two figures: readers differ in which one counts")
    add(
        "json-deep",
        raw(b'"mean":31', b'"mean":' + deep),
        "ArtifactSyntax",
        "deep nesting below a good signature",
    )
    add("json-whitespace", raw(b'"mean":31', b'"mean": 31'), "ArtifactSyntax", "not canonical")
    add("json-empty", b"", "ArtifactSyntax", "nothing")
    add("json-deep-bundle", b"[" * 100_000, "ArtifactSyntax", "nesting that ends a recursive parser")
    add("size-over-a-mebibyte", signed(evaluation()) + b" " * (1 << 20), "ArtifactTooLarge", "too many bytes")
    add(
        "escape",
        signed(edited("predicate", "device", to="\x1b[2J")),
        "SchemaViolation",
        "clears the terminal",
    )
    add(
        "turns-direction",
        signed(edited("predicate", "device", to="\u202eupc")),
        "SchemaViolation",
        "reads backwards",
    )
    add("newline", signed(edited(*SETTING, "name", to="calibrated\n")), "SchemaViolation", "a second line")
    add("markup", signed(edited(*METRIC, "name", to="<b>psnr")), "SchemaViolation", "acts on a page")
    add(
        "no-such-day",
        signed(edited("predicate", "issuedAt", to="2026-02-30T00:00:00Z")),
        "SemanticsViolation",
        "no day",
    )
    nothing = {"notMeasured": [], "versions": {}}
    add("empty-list", signed(edited("predicate", to=lambda p: p | nothing)), "SchemaViolation", "spelled out")
    add(
        "zero",
        signed(edited(*METHOD, to=lambda m: m | {"fittingForwards": 0})),
        "SchemaViolation",
        "spelled out",
    )


def figures(add: Add) -> None:
    """Figures that no measurement gives."""

    def metric(name: str, error: str, why: str, **fields: Any) -> None:
        add(name, signed(edited(*METRIC, to=lambda old: old | fields)), error, why)

    metric("mean-of-no-values", "SemanticsViolation", "better than the values", mean=33)
    metric("mean-beyond-worst", "SemanticsViolation", "worse than the worst prompt", mean=27)
    metric("worst-is-best", "SemanticsViolation", "the best prompt as the worst", worst=34)
    metric("more-samples-than-prompts", "SemanticsViolation", "prompts that were not there", samples=5)
    metric("fewer-samples-than-values", "SemanticsViolation", "values that do not count", samples=3)
    metric("no-samples", "SchemaViolation", "measured on nothing", samples=0)
    metric("negative-standard-error", "SchemaViolation", "less than none", standardError=-1)
    add(
        "metric-twice",
        signed(edited(*METHOD, "metrics", to=lambda m: m * 2)),
        "SemanticsViolation",
        "which counts?",
    )
    add(
        "method-twice",
        signed(edited(*SETTING, "methods", to=lambda m: m * 2)),
        "SemanticsViolation",
        "which counts?",
    )
    add(
        "setting-twice",
        signed(edited("predicate", "settings", to=lambda s: s * 2)),
        "SemanticsViolation",
        "which counts?",
    )
    add("no-policy", signed(edited(*METHOD, "name", to="full")), "SemanticsViolation", "a full run's figures")
    unknown = edited(*METHOD, "samples", to=lambda s: s | {"ssim": [1]})
    add("values-of-no-metric", signed(unknown), "SemanticsViolation", "values of nothing")
    add("values-none", signed(edited(*METHOD, "samples", "psnr", to=[])), "SchemaViolation", "no values")


def settings(add: Add) -> None:
    """Another setting under the name of the calibrated one."""
    for field, value in {
        "scheduler": "UniPCMultistepScheduler",
        "configDigest": "sha256:" + "0" * 64,
        "steps": 60,
        "guidance": 1,
    }.items():
        add(f"other-{field}", signed(edited(*SETTING, field, to=value)), "NotEvaluated", "an easier setting")
    for field, value in {"height": 32, "frames": 1, "dtype": "bfloat16"}.items():
        add(
            f"other-{field}",
            signed(edited(*SETTING, "shape", field, to=value)),
            "NotEvaluated",
            "an easier shape",
        )
    add("other-nfe", signed(edited(*METHOD, "nfe", to=5)), "NotEvaluated", "the figures of a larger budget")
    prompts = statement()["predicate"]["quality"]["calibration"] | {"size": 4}
    add(
        "on-calibration-prompts",
        signed(edited(*SETTING, "prompts", to=prompts)),
        "NotEvaluated",
        "the prompts that the policy was searched on",
    )


def as_policies(add: Add) -> None:
    """Evaluations where policies belong, and policies without the evaluation that is required."""
    good = evaluation()
    add(
        "evaluation-signed-by-publisher",
        signed(good, TRUSTED),
        "WrongPayloadType",
        "an evaluation for a policy",
    )
    renamed = good | {"predicateType": "urn:budc:policy:v1"}
    add("evaluation-called-a-policy", signed(renamed, TRUSTED), "SchemaViolation", "another name")
    add(
        "evaluator-signs-a-policy",
        signed(statement(), SECOND),
        "UntrustedKey",
        "an evaluator's key makes no policy trusted",
        trust="evaluator",
    )
    add(
        "evaluation-missing",
        signed(statement(), TRUSTED),
        "NotEvaluated",
        "no evaluation where one is required",
        trust="evaluator",
    )
