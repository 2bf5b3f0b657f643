"""Which models the compiler supports, known without torch, so that a wrong one is refused before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping

from budc.policies.conditioning_images import image_roles
from budc.policies.profile import ModelProfile
from budc.schema.errors import UnsupportedModel

ADAPTERS: Mapping[str, str] = {
    "FluxPipeline": "budc.compiler.models.pipelines.flux:FluxAdapter",
    "HunyuanVideoPipeline": "budc.compiler.models.pipelines.hunyuan_video:HunyuanVideoAdapter",
    "QwenImagePipeline": "budc.compiler.models.pipelines.qwen_image:QwenImageAdapter",
    "WanImageToVideoPipeline": "budc.compiler.models.pipelines.wan_image:WanImageToVideoAdapter",
    "WanPipeline": "budc.compiler.models.pipelines.wan:WanAdapter",
    "ZImagePipeline": "budc.compiler.models.pipelines.z_image:ZImageAdapter",
}
"""Pipeline class -> its adapter as module:class, see `budc.compiler.models.pipelines.adapter_for`."""

_WITH_INPUT = ("distilled", "none")
_WITH_BRANCHES = ("classifier-free", "none")
_GUIDANCE: Mapping[str, tuple[str, ...]] = {
    "FluxPipeline": _WITH_INPUT,
    "HunyuanVideoPipeline": ("distilled",),
    "QwenImagePipeline": ("classifier-free",),
    "WanImageToVideoPipeline": _WITH_BRANCHES,
    "WanPipeline": _WITH_BRANCHES,
    "ZImagePipeline": _WITH_BRANCHES,
}
"""Pipeline class -> the rules by which it can be guided here."""


def check_supported(profile: ModelProfile) -> None:
    """Refuse a model that cannot be compiled for; needs no weights.

    Raises:
        UnsupportedModel: the pipeline class is not known or not guided so, or the profile does not say when each
            denoiser runs.
    """
    expected = 2 if profile.experts else 1
    if len(profile.denoisers) != expected:
        raise UnsupportedModel(
            f"{profile.name} has {_denoisers(profile)}, and its profile says when {expected} run",
            remedy="give the profile of two denoisers an [experts] table, and no other one",
        )
    adapter_name(profile.pipeline_class)
    rules = _GUIDANCE[profile.pipeline_class]
    if profile.guidance_rule not in rules:
        raise UnsupportedModel(
            f'{profile.name}: guidance_rule is "{profile.guidance_rule}", and a {profile.pipeline_class} has '
            f"{' or '.join(rules)}",
            remedy=f'guidance_rule = "{rules[0]}" in its profile',
        )


def adapter_name(pipeline_class: str) -> str:
    """Return the adapter of a pipeline class as module:class.

    Raises:
        UnsupportedModel: the pipeline class is not known.
    """
    if pipeline_class not in ADAPTERS:
        raise UnsupportedModel(f"cannot compile for {pipeline_class}, only for {', '.join(sorted(ADAPTERS))}")
    return ADAPTERS[pipeline_class]


def check_exportable(profile: ModelProfile, command: str) -> None:
    """Refuse a quantised model, or a pipeline that is given images, for a command of exports.

    Raises:
        UnsupportedModel: the profile names a kind of quantisation, or a pipeline that is given images.
    """
    if image_roles(profile.pipeline_class):
        raise UnsupportedModel(
            f"{command}: {profile.name} starts from an image, which no export does",
            remedy="run it in diffusers (budc run)",
        )
    if profile.quantization:
        raise UnsupportedModel(
            f"{command}: {profile.name} is quantised ({profile.quantization}), which no export is",
            remedy="run it in diffusers (budc run)",
        )


def _denoisers(profile: ModelProfile) -> str:
    return f"{len(profile.denoisers)} denoisers ({', '.join(profile.denoisers)})"
