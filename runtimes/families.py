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
    """One block list of the trunk: attribute name, place in the trunk, and what its blocks return.

    `returns` is "hidden", "text, hidden" or "hidden, text"; hidden is what carries the residual.
    """

    name: str
    returns: str
    first: bool = True
    last: bool = True


@dataclass(frozen=True)
class Family:
    """How to find the trunk of a transformer class, and what its pipelines' shapes mean.

    `spans` are in forward order. `projection` is the last layer, whose output is the velocity in tokens.
    `refused_inputs` enter between the blocks and so cannot be reused with them. `passes_sigmas` says that the
    family's pipelines hand unshifted sigmas to the scheduler instead of a number of steps. `layout` is how
    latents
    lie: "volume" (batch, channels, frames, rows, columns), or "packed" 2 × 2 cells in a sequence.
    """

    name: str
    spans: tuple[Span, ...]
    projection: str = "proj_out"
    refused_inputs: tuple[str, ...] = ()
    passes_sigmas: bool = False
    layout: Literal["volume", "packed"] = "volume"


FAMILIES: Mapping[str, Family] = {
    "WanTransformer3DModel": Family("wan", (Span("blocks", "hidden"),)),
    "FluxTransformer2DModel": Family(
        "flux",
        (
            Span("transformer_blocks", "text, hidden", last=False),
            Span("single_transformer_blocks", "text, hidden", first=False),
        ),
        refused_inputs=("controlnet_block_samples", "controlnet_single_block_samples"),
        passes_sigmas=True,
        layout="packed",
    ),
}


def family_of(transformer: object) -> Family:
    """Return the family of a transformer instance.

    Raises:
        UnsupportedModel: its class is not in `FAMILIES`.
    """
    name = type(transformer).__name__
    if name not in FAMILIES:
        expected = ", ".join(sorted(FAMILIES))
        raise UnsupportedModel(
            f"no trunk is known for the transformer class {name}, expected one of {expected}"
        )
    return FAMILIES[name]
