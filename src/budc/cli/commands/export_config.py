"""`budc export config`: a policy as the configuration file of another engine."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from budc.cli.options import PATH, device_option, json_option, out_option, own_model_option, weights_option
from budc.cli.trust_options import optional_signer, signing_options, trust_options
from budc.schema.errors import UsageError

if TYPE_CHECKING:
    from budc.compiler.evaluation.deployment_error import DeploymentErrors
    from budc.runtimes.targets.deployment import Deployment
    from budc.runtimes.targets.deployment_target import DeploymentTarget
    from budc.schema.artifact import Artifact


@dataclass(frozen=True)
class ConfigOptions:
    """The flags of `budc export config`."""

    policy: Path
    target: str
    out: Path
    settings: tuple[str, ...]
    model: str | None
    weights: Path | None
    samples: int | None
    device: str | None
    trusted: tuple[Path, ...]
    allow_unsigned: bool
    key: str | None
    public: Path | None
    as_json: bool


@click.command("config")
@click.argument("policy", type=PATH)
@click.option("--to", "target", required=True, metavar="TARGET", help="Engine; docs/targets.md lists them.")
@out_option("FILE", "File to write.", required=True)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="What the policy cannot know of the engine, by the engine's own name. May be given again.",
)
@own_model_option
@weights_option("the package's own, where --samples asks for a measurement")
@click.option(
    "--samples",
    type=click.IntRange(1, 64),
    metavar="N",
    help="Measure on N held-out prompts what the engine's rule loses; with --weights the default is 4.",
)
@device_option
@trust_options
@signing_options
@json_option
def config_command(**flags: Any) -> None:
    """Write the artifact POLICY as a configuration file of another engine.

    Says what the engine does differently, what the file leaves open and what the engine will not check. With --key,
    where nothing is lost, FILE.budc.json is written too: the policy for this engine, bound to FILE by its sha256 and
    signed. `budc verify FILE.budc.json --config FILE` checks both.

    POLICY must be signed by a key that you trust.
    """
    from budc.cli.output.exported_config import page, record
    from budc.cli.trust_store import load_trust, open_trusted
    from budc.runtimes.targets.losses import deployed
    from budc.runtimes.targets.registry import target_named
    from budc.schema.files import check_place, write_atomic

    options = ConfigOptions(**flags)
    target = target_named(options.target)
    settings = _settings(options.settings, target)
    check_place(options.out)
    signer = optional_signer(options.key, options.public)
    artifact = open_trusted(
        options.policy, load_trust(options.trusted), allow_unsigned=options.allow_unsigned
    )
    deployment = deployed(target, artifact.document, artifact.policy_id, settings, options.out.suffix.lower())
    configuration = target.write(deployment)
    content = configuration.text.encode()
    bound = None
    if signer is not None:
        from budc.schema.artifact import SUFFIX, seal

        bound = options.out.with_name(options.out.name + SUFFIX)
        check_place(bound)
        signed = seal(_bound(target, deployment, artifact, content), signer)
    errors = None
    if options.samples is not None or options.weights is not None:
        errors = _measure(target, deployment, options)
    write_atomic(options.out, content)
    if bound is not None:
        write_atomic(bound, signed)
    shown = (target, deployment, configuration, options.out, bound, errors)
    click.echo(json.dumps(record(*shown), indent=1) if options.as_json else page(*shown))


def _settings(given: tuple[str, ...], target: DeploymentTarget) -> Mapping[str, str]:
    """Return what --set says. Raises UsageError."""
    settings: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value:
            raise UsageError(f"--set: {text!r} is not NAME=VALUE")
        if name not in target.settings:
            known = ", ".join(target.settings)
            raise UsageError(
                f"--set: {target.name} has no setting {name!r}",
                remedy=f"one of {known}" if known else "leave it out: the policy says all that it needs",
            )
        if name in settings:
            raise UsageError(f"--set: {name} is given twice")
        settings[name] = value
    return settings


def _bound(target: DeploymentTarget, deployment: Deployment, artifact: Artifact, content: bytes) -> Any:
    """Return the policy that is bound to the file. Raises UsageError: the engine runs another policy than this one."""
    from budc.runtimes.targets.binding import bound_to_configuration

    if deployment.losses:
        kinds = ", ".join(loss.partition(":")[0] for loss in deployment.losses)
        raise UsageError(
            f"--key: {target.engine} runs another policy than {artifact.document.name} ({kinds}), whose figures would "
            "not be true of it",
            remedy=f"sign one that was made for it: budc compile --for {target.name}; or leave out --key",
        )
    return bound_to_configuration(target, deployment, content)


def _measure(target: DeploymentTarget, deployment: Deployment, options: ConfigOptions) -> DeploymentErrors:
    from budc.cli.dependencies import MODEL_PACKAGES, model_libraries, require
    from budc.policies.artifact_profile import profile_of

    profile = profile_of(deployment.document, options.model)
    require(*MODEL_PACKAGES)
    with model_libraries(if_stopped="nothing was written"):
        from budc.compiler.evaluation.deployment_error import DeploymentRun, deployment_errors

        return deployment_errors(
            DeploymentRun(
                target=target,
                deployment=deployment,
                profile=profile,
                folder=options.weights,
                samples=options.samples or 4,
                device=options.device,
            )
        )
