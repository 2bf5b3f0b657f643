"""A policy bound to the configuration file that was written for its engine.

The file's sha256 stands in the policy, so who has signed the policy vouches for the file as well.
"""

import hashlib

import msgspec

from budc.runtimes.targets.deployment import Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.errors import SignatureInvalid, UsageError
from budc.schema.policy import PolicyDocument, Target
from budc.schema.timestamps import issue_time


def target_of(target: DeploymentTarget) -> Target:
    """Return how a policy names its engine."""
    return Target(name=target.name, version=target.version)


def bound_to_configuration(
    target: DeploymentTarget, deployment: Deployment, content: bytes
) -> PolicyDocument:
    """Return the policy for its engine, derived from the one that was deployed and bound to the file's bytes."""
    return msgspec.structs.replace(
        deployment.document,
        target=Target(
            name=target.name,
            version=target.version,
            settings=dict(deployment.settings),
            config_digest=digest(content),
        ),
        derived_from=deployment.policy_id,
        issued_at=issue_time(),
    )


def check_configuration(document: PolicyDocument, content: bytes, where: str) -> None:
    """Check that a file is the one that a policy is bound to.

    Raises:
        UsageError: the policy is bound to none.
        SignatureInvalid: it is another file.
    """
    bound = document.target.config_digest if document.target is not None else None
    if bound is None:
        raise UsageError(
            f"{document.name} is bound to no configuration, so {where} cannot be checked against it",
            remedy="check the policy that `budc export config --key` wrote beside the file",
        )
    if digest(content) != bound:
        raise SignatureInvalid(
            f"{where} is not the configuration that {document.name} is bound to: its sha256 is {digest(content)}, "
            f"expected {bound}",
            remedy="discard the file, and export it again",
        )


def digest(content: bytes) -> str:
    """Return the sha256 of a file as a policy holds it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
