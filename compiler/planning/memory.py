"""Memory: what each phase of a compile has on the device, for one sample, and whether that fits.

    encode         the text encoders; where they do not fit, a layer at a time
    encode images  (image to video) the VAE with a clip; where that does not fit, a tile at a time
    reference run  a denoiser, activations, a residual; --offload group: a block at a time
    search         the same; what is cached for later steps lies in the host's memory
    align          a denoiser, and what a backward needs
    report         a denoiser, activations, and all that is cached: a policy runs as it is deployed
    decode         the VAE with a sample; where that does not fit, a tile at a time

Phases come one after another. Weights that share a run take turns, and batches are as large as fits.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from budc.policies.costs import Cost
from budc.policies.profile import ModelProfile
from budc.schema.predictor import MAX_TERMS


class Fit(StrEnum):
    """How a compile fits a device."""

    WHOLE = "fits"
    REDUCED = "fits, but slower"
    GROUP = "needs --offload group"
    NOT = "does not fit"


class Phase(NamedTuple):
    """Bytes that a phase takes, and in a smaller way, which is chosen by itself unless it is --offload group."""

    name: str
    whole: int
    """0 where it goes in the smaller way alone."""
    reduced: int
    way: str

    def fit(self, memory: int) -> Fit:
        """Return how the phase fits so many bytes."""
        if 0 < self.whole <= memory:
            return Fit.WHOLE
        if self.reduced > memory:
            return Fit.NOT
        return Fit.GROUP if self.way == GROUP else Fit.REDUCED


GROUP = "with --offload group"
LAYERS = "a layer at a time"
TILES = "in tiles"


def phases(profile: ModelProfile, cost: Cost, *, align: bool) -> tuple[Phase, ...]:
    """Return the phases of a compile in their order; without encoding and decoding where these are not known."""

    def denoiser(name: str, beside: int) -> Phase:
        return Phase(name, cost.weights + beside, cost.one_block + beside, GROUP)

    parts, forward = cost.parts, cost.activations + cost.residual
    cached = len(profile.branches) * MAX_TERMS * cost.residual
    found = [Phase("encode", parts.encoder, parts.encoder_layer, LAYERS)] if parts else []
    if parts and parts.image_encoding:
        found.append(Phase("encode images", parts.image_encoding, parts.tiled_image_encoding, TILES))
    found += [denoiser("reference run", forward), denoiser("search", forward)]
    if align:
        found.append(denoiser("align", cost.residual + max(cost.activations, cost.gradients)))
    found.append(denoiser("report", cost.activations + cached))
    if parts:
        found.append(Phase("decode", parts.decoding, parts.tiled_decoding, TILES))
    return tuple(found)


def fit(found: tuple[Phase, ...], memory: int) -> Fit:
    """Return how all phases fit so many bytes: as the one that fits worst."""
    order = list(Fit)
    return max((phase.fit(memory) for phase in found), key=order.index)
