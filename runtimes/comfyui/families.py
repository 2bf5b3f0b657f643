"""The networks of ComfyUI that a policy can drive: where their blocks are, and how they differ from diffusers' classes.

A policy names its network by diffusers' class; `ENGINE_FAMILIES` has ComfyUI's network of the same model. Adding a
family is one entry. Nothing here imports ComfyUI or torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from budc.runtimes.comfyui.weight_names import FLUX, QWEN_IMAGE, WAN, Z_IMAGE, Rule
from budc.schema.errors import UnsupportedModel


@dataclass(frozen=True)
class BlockList:
    """One list of blocks: its attribute, and how a block takes and returns the hidden state.

    `hidden` and `text` are names of keyword arguments; without a name the hidden state is the first argument. `output`
    is the place of the hidden state in what a block returns, None where it returns nothing else. Where text and hidden
    state are one sequence, the text comes first.
    """

    name: str
    hidden: str | None = None
    text: str | None = None
    output: int | None = None


@dataclass(frozen=True)
class EngineFamily:
    """A network of ComfyUI.

    `first` and `last` are the lists in which the trunk begins and ends; they may be the same. `lead` is a list before
    the trunk that sees the image's tokens alone. A timestep of a policy, times `timestep_scale`, is what the network
    takes. ComfyUI's `cfg` is a policy's guidance plus `cfg_offset`; where `rescales` is true, the pipeline of diffusers
    also scales each cell of the guided velocity to the norm of the conditional one. `settings` reads settings off a
    network, by the names that they have in diffusers.
    """

    network: str
    first: BlockList
    last: BlockList
    names: tuple[Rule, ...]
    settings: Callable[[Any], Mapping[str, object]]
    lead: str | None = None
    timestep_scale: float = 1.0
    cfg_offset: float = 0.0
    rescales: bool = False


_WAN_BLOCKS = BlockList("blocks")
_QWEN_BLOCKS = BlockList("transformer_blocks", hidden="hidden_states", text="encoder_hidden_states", output=1)
_Z_IMAGE_BLOCKS = BlockList("layers")

ENGINE_FAMILIES: Mapping[str, EngineFamily] = {
    "FluxTransformer2DModel": EngineFamily(
        "Flux",
        first=BlockList("double_blocks", hidden="img", text="txt", output=0),
        last=BlockList("single_blocks"),
        names=FLUX,
        settings=lambda network: {
            "num_attention_heads": network.num_heads,
            "axes_dims_rope": list(network.params.axes_dim),
            "guidance_embeds": network.params.guidance_embed,
        },
        timestep_scale=1e-3,
    ),
    "WanTransformer3DModel": EngineFamily(
        "WanModel",
        first=_WAN_BLOCKS,
        last=_WAN_BLOCKS,
        names=WAN,
        settings=lambda network: {
            "num_attention_heads": network.num_heads,
            "cross_attn_norm": network.cross_attn_norm,
            "eps": network.eps,
            "freq_dim": network.freq_dim,
            "patch_size": list(network.patch_size),
        },
    ),
    "ZImageTransformer2DModel": EngineFamily(
        "NextDiT",
        first=_Z_IMAGE_BLOCKS,
        last=_Z_IMAGE_BLOCKS,
        names=Z_IMAGE,
        settings=lambda network: {
            "n_heads": network.n_heads,
            "axes_dims": list(network.axes_dims),
            "t_scale": network.time_scale,
        },
        lead="noise_refiner",
        timestep_scale=1e-3,
        cfg_offset=1.0,
    ),
    "QwenImageTransformer2DModel": EngineFamily(
        "QwenImageTransformer2DModel",
        first=_QWEN_BLOCKS,
        last=_QWEN_BLOCKS,
        names=QWEN_IMAGE,
        settings=lambda network: {"patch_size": network.patch_size, "out_channels": network.out_channels},
        timestep_scale=1e-3,
        rescales=True,
    ),
}


def engine_family(class_name: str, network: object) -> EngineFamily:
    """Return the family of a policy's network, given by diffusers' class name, for ComfyUI's `network`.

    Raises:
        UnsupportedModel: it is in none, or `network` is another one.
    """
    if class_name not in ENGINE_FAMILIES:
        raise UnsupportedModel(
            f"the policy is for {class_name}, which is not supported in ComfyUI",
            remedy=f"use a policy for one of {', '.join(ENGINE_FAMILIES)}",
        )
    family = ENGINE_FAMILIES[class_name]
    if type(network).__name__ != family.network:
        raise UnsupportedModel(
            f"the policy is for {class_name}, which is {family.network} in ComfyUI; "
            f"this MODEL is a {type(network).__name__}",
            remedy="load the model that the policy was compiled for",
        )
    return family
