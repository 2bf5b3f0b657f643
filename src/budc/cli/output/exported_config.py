"""What `budc export config` wrote, lost and left open, as a page of text or as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from budc.cli.output.tables import fields, strip
from budc.schema.printable import printable

if TYPE_CHECKING:
    from budc.compiler.evaluation.deployment_error import DeploymentErrors
    from budc.runtimes.targets.deployment import Configuration, Deployment
    from budc.runtimes.targets.deployment_target import DeploymentTarget


def page(
    target: DeploymentTarget,
    deployment: Deployment,
    configuration: Configuration,
    out: Path,
    bound: Path | None,
    errors: DeploymentErrors | None,
) -> str:
    """Return the page; `bound` is the policy that was signed beside the file."""
    pairs = [("wrote", printable(str(out)))]
    if bound is not None:
        pairs.append(("signed", f"{printable(str(bound))}, bound to the file's sha256"))
    pairs.append(("target", f"{target.name}, as of {target.version}"))
    pairs += [(f"mask {name}", strip(mask)) for name, mask in deployment.masks.items()]
    pairs.append(
        (
            "lost",
            "\n".join(deployment.losses) or "nothing: the engine runs the policy as it says, to rounding",
        )
    )
    pairs.append(("error", _errors(errors, lossy=bool(deployment.losses))))
    if configuration.unknown:
        pairs.append(("open", "\n".join(map(printable, configuration.unknown))))
    pairs.append(("unchecked", "\n".join(target.unchecked)))
    pairs.append(("load with", configuration.usage.replace("FILE", printable(str(out)))))
    return fields(pairs)


def record(
    target: DeploymentTarget,
    deployment: Deployment,
    configuration: Configuration,
    out: Path,
    bound: Path | None,
    errors: DeploymentErrors | None,
) -> dict[str, object]:
    """Return the same as JSON holds it."""
    return {
        "path": str(out),
        "policy": None if bound is None else str(bound),
        "target": target.name,
        "version": target.version,
        "masks": {name: list(mask) for name, mask in deployment.masks.items()},
        "losses": list(deployment.losses),
        "open": list(configuration.unknown),
        "unchecked": list(target.unchecked),
        "errors": None if errors is None else errors._asdict(),
    }


def _errors(errors: DeploymentErrors | None, *, lossy: bool) -> str:
    if errors is None:
        return "not measured; --samples 4 measures it on held-out prompts" if lossy else "not measured"
    return (
        f"{errors.deployed:.3g} as the engine runs it, {errors.policy:.3g} as the policy says, both against every step "
        f"computed\n{errors.between:.3g} between the two\n"
        f"squared errors of final latents, geometric means over {errors.samples} held-out prompts"
    )
