"""LightX2V's MagCache: a part of its JSON configuration, with a mask for each guidance branch."""

import json

from budc.runtimes.targets.deployment import Configuration, Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.runtimes.targets.magcache import THRESHOLD, ratios

_USAGE = "--config_json FILE, merged with the settings of your deployment (attention, offload)"


def configuration(deployment: Deployment) -> Configuration:
    """Return the settings that LightX2V reads, those of the deployment that it has in the same file among them."""
    masks, sampler = deployment.masks, deployment.document.sampler
    shape = deployment.document.pipeline().shape
    settings: dict[str, object] = {
        "infer_steps": sampler.steps,
        "target_height": shape.height,
        "target_width": shape.width,
        "target_video_length": shape.frames,
        "enable_cfg": sampler.guidance_rule == "classifier-free",
        "sample_guide_scale": sampler.guidance,
    }
    shift = sampler.config.get("flow_shift", sampler.config.get("shift"))
    if isinstance(shift, int | float):
        settings["sample_shift"] = shift
    if shape.text_tokens is not None:
        settings["text_len"] = shape.text_tokens
    cond = masks.get("cond", deployment.mask)
    settings |= {
        "feature_caching": "Mag",
        "magcache_calibration": False,
        "magcache_K": sampler.steps,
        "magcache_thresh": THRESHOLD,
        "magcache_retention_ratio": 0.0,
        # Conditional first; without guidance the second list is there and not read.
        "magcache_ratios": [ratios(cond), ratios(masks.get("uncond", cond))],
    }
    return Configuration(json.dumps(settings, indent=1) + "\n", _USAGE)


LIGHTX2V = DeploymentTarget(
    name="lightx2v",
    engine="LightX2V",
    version="2026-08",
    payload="trunk-residual",
    rule="plain",
    branch_masks=True,
    one_size=True,
    denoisers=("WanTransformer3DModel",),
    unchecked=(
        "the signature, and whose policy it is",
        "the model: weights are named by --model_path alone",
        "the scheduler: it has its own for each model",
        "prompts and adapters",
    ),
    write=configuration,
)
