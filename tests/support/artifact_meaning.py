"""What a reader must find in a golden artifact, as its `expected.json` holds it."""

from typing import Any

from msgspec import to_builtins

from budc.schema.policy import PolicyDocument


def meaning(document: PolicyDocument, policy_id: str, signers: list[str]) -> dict[str, Any]:
    """Return what a reader must find in an artifact; optional entries where they are set."""
    value = to_builtins(document)
    optional = {
        "experts": [[e.denoiser, e.first_step, e.guidance] for e in document.sampler.experts],
        "replayTolerance": document.quality.replay_tolerance,
        "kind": value["model"].get("kind"),
        "scaled": value["model"]["adapters"].get("scaled"),
        "networks": [
            {name: item[name] for name in ("config", "quantization", "blocks", "guidance") if name in item}
            for item in value["model"]["denoisers"]
            if item.keys() - {"name", "className", "tensorRoot", "architecture"}
        ],
        "negativePrompt": value["sampler"].get("negativePrompt"),
        "furtherShapes": [
            {name: item for name, item in shape.items() if name != "quality"}
            for shape in value.get("furtherShapes", ())
        ],
        "images": value.get("images"),
        "target": value.get("target"),
        "evaluations": [metric.evaluation for metric in document.quality.metrics if metric.evaluation],
    }
    return {name: item for name, item in optional.items() if item} | {
        "policyId": policy_id,
        "signers": signers,
        "name": document.name,
        "revision": document.revision,
        "steps": document.sampler.steps,
        "nfe": document.budget.nfe,
        "branches": dict(document.budget.branches),
        "masks": {
            name: "".join("#" if computed else "." for computed in branch.mask)
            for branch in document.policy.branches
            for name in branch.names
        },
        "payload": document.policy.payload,
        "configDigest": document.sampler.config_digest,
    }
