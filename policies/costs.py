"""Costs: what one forward of each shipped model takes, counted beforehand, so that a plan needs no framework.

    shipped_cost(load_profile("wan2.1-14b"))

`python benchmarks/count_costs.py` counts them from the architectures and writes costs.json; a test counts them again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

import msgspec

from budc.policies.profile import ModelProfile, load_profile, profile_names

COSTS_FILE = "costs.json"
COUNTED = (
    *("denoisers", "architecture", "embedded", "weights", "pipeline_class"),
    *("height", "width", "frames", "text_tokens", "dtype"),
)
"""Fields of a profile that its cost follows from."""


class PartCosts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Of the parts beside the denoiser, in bytes on the device."""

    encoder: int
    """The weights of all text encoders, or those of the image encoder if it is larger."""
    encoder_layer: int
    """The largest layer of them: what they take where they compute layer by layer."""
    image_encoding: int = 0
    """The VAE while it encodes the clip that an image begins; 0 where samples start from a text alone."""
    tiled_image_encoding: int = 0
    """The same with one tile."""
    decoding: int
    """The VAE with one sample; 0 where it can be decoded in tiles alone."""
    tiled_decoding: int
    """The VAE with one tile, and one sample's frames."""


class Cost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Of one sample and one branch: `flops` of a computed step and `reuse_flops` of a reused one; of one denoiser:
    `parameters`; all others in bytes.
    """

    parameters: int
    flops: float
    reuse_flops: float
    weights: int
    """Of one denoiser."""
    one_block: int
    """Of what is outside its blocks, and the largest block: what is on the device with --offload group."""
    residual: int
    """Of the trunk, one step."""
    latents: int
    """Of one sample, in float32."""
    activations: int
    """The peak beside the weights."""
    gradients: int = 0
    """What a backward takes beside the weights, with checkpointed blocks; 0 where it was not counted."""
    parts: PartCosts | None = None
    """None where the folder of the model is not there to be looked at."""


@cache
def costs() -> Mapping[str, Cost]:
    """Return the counted costs by the name of the profile."""
    content = files("budc.policies").joinpath(COSTS_FILE).read_bytes()
    return msgspec.json.decode(content, type=dict[str, Cost])


def shipped_cost(profile: ModelProfile) -> Cost | None:
    """Return the cost of a shipped profile; None for one of the user's own, or one of another size."""
    if profile.name not in profile_names():
        return None
    shipped = load_profile(profile.name)
    same = all(getattr(profile, field) == getattr(shipped, field) for field in COUNTED)
    return costs().get(profile.name) if same else None
