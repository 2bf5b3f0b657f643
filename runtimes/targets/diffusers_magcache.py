"""diffusers' own MagCache: the keyword arguments of `MagCacheConfig` as JSON."""

import json

from budc.runtimes.targets.deployment import Configuration, Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.runtimes.targets.magcache import THRESHOLD, ratios

_USAGE = "pipe.transformer.enable_cache(MagCacheConfig(**json.load(open('FILE'))))"


def configuration(deployment: Deployment) -> Configuration:
    """Return the arguments of `diffusers.MagCacheConfig`."""
    mask = deployment.mask
    arguments = {
        "num_inference_steps": mask.steps,
        "threshold": THRESHOLD,
        "max_skip_steps": mask.steps,
        "retention_ratio": 0.0,
        "mag_ratios": ratios(mask),
    }
    return Configuration(json.dumps(arguments, indent=1) + "\n", _USAGE)


DIFFUSERS_MAGCACHE = DeploymentTarget(
    name="diffusers-magcache",
    engine="diffusers' MagCache",
    version="0.42",
    payload="trunk-residual",
    rule="plain",
    unchecked=(
        "the signature, and whose policy it is",
        "the model: any transformer with blocks takes the file",
        "the number of steps of a run: with another one, the mask ends early or starts again in the middle of a run",
        "sigmas, guidance, size, precision, prompts and adapters",
    ),
    write=configuration,
)
