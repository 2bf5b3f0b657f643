"""An artifact as a page of text or as JSON: what its file says. Nothing is verified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from budc.cli.output.additions import conditions, further_quality, network, shapes, target
from budc.cli.output.summary import budget, choices, claimed_signers, cost, masks, measured_on, quality
from budc.cli.output.tables import fields, wrapped
from budc.cli.output.verdict import verdict
from budc.schema.plural import counted
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.schema.artifact import Artifact
    from budc.schema.policy import PolicyDocument

NOT_VERIFIED = "not verified here: anyone can have written this; `budc verify` decides"


def record(artifact: Artifact, speed: str = "") -> dict[str, object]:
    """Return the artifact as JSON holds it, beside what its file claims about signatures; `speed` is of its loop."""
    import msgspec

    return {
        "verified": False,
        "policyId": artifact.policy_id,
        "signed": artifact.signed,
        "claimedKeyIds": [signature.keyid for signature in artifact.signatures],
        "hint": artifact.hint,
        "verdict": verdict(artifact.document, speed=speed),
        "document": msgspec.to_builtins(artifact.document),
    }


def page(artifact: Artifact, speed: str = "", *, verbose: bool = False) -> str:
    """Return the artifact as a page of text; `speed` says what its loop took, `verbose` lists coefficients."""
    document = artifact.document
    pairs = [
        ("name", printable(f"{document.name}, revision {document.revision}")),
        ("policy", artifact.policy_id),
        ("issued", printable(document.issued_at + _expiry(document))),
        ("signed by", f"{claimed_signers(artifact)}\n{NOT_VERIFIED}"),
        ("model", printable(f"{_model(document)}, {_variants(document)}")),
        *shapes(document),
        *network(document),
        *conditions(document),
        ("sampler", printable(_sampler(document))),
        *_experts(document),
        ("budget", budget(document)),
        *masks(document, verbose=verbose),
        ("payload", document.policy.payload),
        *target(document),
        ("sigmas", _sigmas(document)),
        ("search", cost(document)),
        *choices(document),
        ("quality", measured_on(document)),
    ]
    if document.derived_from is not None:
        pairs.insert(2, ("derived from", document.derived_from))
    pairs += [
        (f"note {printable(key)}", printable(text)) for key, text in sorted(document.annotations.items())
    ]
    parts = [
        verdict(document, speed=speed),
        fields(pairs),
        quality(document),
        *further_quality(document),
    ]
    return "\n\n".join(parts)


def _expiry(document: PolicyDocument) -> str:
    return f", not after {document.not_after}" if document.not_after else ", does not expire"


def _model(document: PolicyDocument) -> str:
    model = document.model
    if model.kind == "network":
        names = ", ".join(denoiser.class_name for denoiser in model.denoisers)
        return f"a network without a pipeline ({names}, family {model.family})"
    return f"{model.profile} ({model.pipeline_class})"


def _variants(document: PolicyDocument) -> str:
    if not document.model.variants:
        roots = ", ".join(denoiser.tensor_root for denoiser in document.model.denoisers)
        return f"weights by tensor root {roots}"
    names = [f"{variant.name} ({counted(len(variant.files), 'file')})" for variant in document.model.variants]
    return f"weights {', '.join(names)}"


def _sampler(document: PolicyDocument) -> str:
    sampler = document.sampler
    return (
        f"{sampler.scheduler}, {sampler.steps} steps, guidance {sampler.guidance:g} ({sampler.guidance_rule})"
    )


def _experts(document: PolicyDocument) -> list[tuple[str, str]]:
    lines = [
        printable(f"{expert.denoiser} from step {expert.first_step} on, guidance {expert.guidance:g}")
        for expert in document.sampler.experts
    ]
    return [("experts", "\n".join(lines))] if lines else []


def _sigmas(document: PolicyDocument) -> str:
    sigmas = document.sampler.sigmas
    return f"{len(sigmas)}, from {sigmas[0]:.6g} to {sigmas[-1]:.6g}\n{wrapped(f'{s:.4f}' for s in sigmas)}"
