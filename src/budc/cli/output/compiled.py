"""What a compile or a transfer wrote, as a page of text or as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from budc.cli.output.additions import conditions, further_quality
from budc.cli.output.summary import budget, choices, claimed_signers, cost, masks, measured_on, quality
from budc.cli.output.tables import fields
from budc.cli.output.verdict import speed_up, verdict
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.compiler.evaluation.report import LoopTimes
    from budc.schema.artifact import Artifact


def page(
    artifact: Artifact, loop: LoopTimes | None = None, tried: Sequence[str] = (), *, verbose: bool = False
) -> str:
    """Return what was compiled as a page of text, with what its `loop` took, and those of budgets that were tried.

    `verbose` lists coefficients.
    """
    document = artifact.document
    pairs = [
        ("wrote", str(artifact.path)),
        ("policy", artifact.policy_id),
        *([("derived from", document.derived_from)] if document.derived_from else []),
        ("signed by", claimed_signers(artifact)),
        *conditions(document),
        ("budget", budget(document)),
        *masks(document, verbose=verbose),
        ("search", cost(document)),
        *choices(document),
        *([("tried", "\n".join(map(printable, tried)))] if tried else []),
        ("quality", measured_on(document)),
    ]
    parts = [
        verdict(document, speed=_speed(loop)),
        fields(pairs),
        quality(document),
        *further_quality(document),
    ]
    return "\n\n".join(parts)


def record(artifact: Artifact, loop: LoopTimes | None = None, tried: Sequence[str] = ()) -> dict[str, object]:
    """Return what was compiled as one JSON object, with what its `loop` took, and those of budgets that were tried."""
    import msgspec

    document = artifact.document
    return {
        "path": str(artifact.path),
        "policyId": artifact.policy_id,
        "name": document.name,
        "revision": document.revision,
        "signedBy": [signature.keyid for signature in artifact.signatures],
        "verdict": verdict(document, speed=_speed(loop)),
        "loop": None if loop is None else loop._asdict(),
        "tried": list(tried),
        "budget": msgspec.to_builtins(document.budget),
        "steps": document.sampler.steps,
        "policy": msgspec.to_builtins(document.policy),
        "quality": msgspec.to_builtins(document.quality),
        "search": msgspec.to_builtins(document.search),
    }


def _speed(loop: LoopTimes | None) -> str:
    return "" if loop is None else speed_up(loop.full, loop.policy, loop.device)
