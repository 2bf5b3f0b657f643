"""The transformer families that a policy can drive: where their blocks are and what a block returns.

Adding a family is one entry in `FAMILIES`, keyed on the transformer's class name. Nothing here imports a
framework.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from budc.schema.errors import UnsupportedModel


@dataclass(frozen=True)
class Span:
    """One block list of the trunk: attribute name, position in the trunk, and what its blocks return.

    `returns` is "hidden", "text, hidden" or "hidden, text"; the residual is the change of hidden. `leads` is true
    for a list before the trunk, whose blocks always run.
    """

    name: str
    returns: str
    first: bool = True
    last: bool = True
    leads: bool = False


SigmaRule = Literal["none", "to-last", "to-last-single", "to-zero"]
"""What a pipeline passes to `set_timesteps`: for "none" a number of steps, else unshifted sigmas (see
`budc.runtimes.sampling.schedulers.passed_sigmas`)."""

Layout = Literal["volume", "image", "packed"]
"""Shape of latents: (batch, channels, frames, rows, columns), (batch, channels, rows, columns), or a sequence of
2 × 2 cells."""


@dataclass(frozen=True)
class Family:
    """How to find the trunk of a transformer class, and what its pipelines do around it.

    `spans` are in forward order. `projection` is the path of the last layer, whose output is the velocity in
    tokens. `refused_inputs` enter between the blocks, so they are lost where the blocks are skipped. `passes_mu` says
    that the pipelines shift the schedule by resolution where the scheduler's configuration says so. `batched` are the
    guidance branches of one forward, in the order of their rows, where the pipelines do not call `cache_context` for
    each branch.

    Classifier-free guidance of a scale g is uncond + (g + `guidance_offset`) (cond - uncond). Where `rescales_guidance`
    is true, each cell of it (..., channels) is then scaled to the norm of the conditional velocity.

    `lead` is a block list before the trunk that sees the image's tokens alone, where the trunk's hidden state holds
    the text's tokens after them. Only the image's tokens reach the output, so only theirs are cached: the cached
    tensor then has one shape for every prompt and every batch.

    Where `pads_text` is false, the pipelines truncate a prompt to a number of tokens, but leave a shorter one as it is.
    """

    name: str
    spans: tuple[Span, ...]
    projection: str = "proj_out"
    refused_inputs: tuple[str, ...] = ()
    sigmas: SigmaRule = "none"
    passes_mu: bool = False
    batched: tuple[str, ...] = ()
    guidance_offset: float = 0.0
    rescales_guidance: bool = False
    lead: Span | None = None
    layout: Layout = "volume"
    pads_text: bool = True


def _two_phases(returns: str) -> tuple[Span, ...]:
    return (
        Span("transformer_blocks", returns, last=False),
        Span("single_transformer_blocks", returns, first=False),
    )


FAMILIES: Mapping[str, Family] = {
    "WanTransformer3DModel": Family("wan", (Span("blocks", "hidden"),)),
    "FluxTransformer2DModel": Family(
        "flux",
        _two_phases("text, hidden"),
        refused_inputs=("controlnet_block_samples", "controlnet_single_block_samples"),
        sigmas="to-last",
        passes_mu=True,
        layout="packed",
    ),
    "HunyuanVideoTransformer3DModel": Family("hunyuan-video", _two_phases("hidden, text"), sigmas="to-zero"),
    "QwenImageTransformer2DModel": Family(
        "qwen-image",
        (Span("transformer_blocks", "text, hidden"),),
        refused_inputs=("controlnet_block_samples",),
        sigmas="to-last",
        passes_mu=True,
        rescales_guidance=True,
        layout="packed",
        pads_text=False,
    ),
    "ZImageTransformer2DModel": Family(
        "z-image",
        (Span("layers", "hidden"),),
        projection="all_final_layer.2-1",
        refused_inputs=("controlnet_block_samples", "siglip_feats"),
        sigmas="to-last-single",
        passes_mu=True,
        batched=("cond", "uncond"),
        guidance_offset=1.0,
        lead=Span("noise_refiner", "hidden", leads=True),
        layout="image",
        pads_text=False,
    ),
}


def family_of(transformer: object) -> Family:
    """Return the family of a transformer instance.

    Raises:
        UnsupportedModel: its class is not in `FAMILIES`.
    """
    return family_named(type(transformer).__name__)


def family_named(name: str) -> Family:
    """Return the family of transformers of a class, by the class's name.

    Raises:
        UnsupportedModel: it is not in `FAMILIES`.
    """
    if name not in FAMILIES:
        expected = ", ".join(sorted(FAMILIES))
        raise UnsupportedModel(f"the transformer class {name} is not supported, expected one of {expected}")
    return FAMILIES[name]
