"""stable-diffusion.cpp: the policy's sigmas as arguments of its command line. It follows no mask."""

from budc.runtimes.targets.deployment import Configuration, Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.schema.errors import UnsupportedModel

_EULER = "FlowMatchEulerDiscreteScheduler"

_USAGE = "sd-cli $(cat FILE) with your model and prompt"


def configuration(deployment: Deployment) -> Configuration:
    """Return one line of arguments. Raises UnsupportedModel: its samplers have no such scheduler."""
    sampler = deployment.document.sampler
    if sampler.scheduler != _EULER:
        raise UnsupportedModel(
            f"{deployment.document.name} is for {sampler.scheduler}, stable-diffusion.cpp takes steps like it with "
            f"{_EULER} alone",
            remedy=f"compile it with --scheduler {_EULER}",
        )
    sigmas = ",".join(f"{sigma:.9g}" for sigma in sampler.sigmas)
    return Configuration(f"--sampling-method euler --steps {sampler.steps} --sigmas {sigmas}\n", _USAGE)


SD_CPP = DeploymentTarget(
    name="sd.cpp",
    engine="stable-diffusion.cpp",
    version="2026",
    payload="trunk-residual",
    rule="none",
    sigmas=True,
    unchecked=(
        "the signature, and whose policy it is",
        "the model, its quantisation, guidance, size, prompts and adapters",
    ),
    write=configuration,
)
