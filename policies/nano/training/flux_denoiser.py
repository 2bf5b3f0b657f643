"""Train the denoiser of `flux-nano` in two stages, as FLUX.1 [dev] is said to have been made.

The teacher learns by flow matching with one caption in eight emptied; its guidance input is constantly 1,
which is what no guidance means. The student starts from the teacher and regresses onto the teacher's guided
velocity, uncond + g (cond - uncond), with g as its input (Meng et al., 2023), so that one forward does the
work of two.
"""

from __future__ import annotations

import random

import torch
from diffusers import FluxTransformer2DModel
from msgspec.structs import astuple
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from budc.policies.nano.data.captions import train_phrase
from budc.policies.nano.data.pictures import Picture, phrase
from budc.policies.nano.training.flux_latents import positions
from budc.policies.nano.training.flux_text import Texts
from budc.policies.nano.training.loop import Loss, Recipe

TEACHER = Recipe(steps=9_000, matrix_lr=0.01, other_lr=2e-3, average=0.999, save_every=250)
STUDENT = Recipe(steps=2_000, matrix_lr=0.004, other_lr=8e-4, average=0.99, save_every=250)
BATCH = 32
PHRASINGS = 32
"""Captions of the train split that are drawn, and encoded once, for every different picture."""
SHIFT = 2.0
"""Noise levels are drawn with density shifted towards noise, where a picture is decided."""
SCALES = (1.0, 6.0)
"""Range of the guidance scales that the student learns."""


class Data:
    """Packed latents (N, cells, 4C), what each shows, and encoded captions for it."""

    def __init__(self, latents: Tensor, pictures: list[Picture], texts: Texts, seed: int) -> None:
        self.latents = latents
        side = int(latents.shape[1] ** 0.5)
        self.img_ids = positions(side, side)
        kinds = sorted(set(pictures), key=astuple)
        rng = random.Random(seed)
        spoken = [train_phrase(kind, rng, phrase) for kind in kinds for _ in range(PHRASINGS)]
        numbers = {kind: number for number, kind in enumerate(kinds)}
        self._number = torch.tensor([numbers[picture] for picture in pictures])
        read = [texts(spoken[first : first + 256]) for first in range(0, len(spoken), 256)]
        self.read = {
            name: torch.cat([part[name] for part in read]).half()
            for name in ("encoder_hidden_states", "pooled_projections")
        }
        self.empty = texts([""])

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw a batch: clean latents, noise, noise levels (B,), and the number of a caption for each (B,)."""
        chosen = torch.randint(len(self.latents), (BATCH,), generator=generator)
        phrased = torch.randint(PHRASINGS, (BATCH,), generator=generator)
        clean = self.latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        uniform = torch.rand(BATCH, generator=generator)
        sigma = SHIFT * uniform / (1 + (SHIFT - 1) * uniform)
        return clean, noise, sigma, self._number[chosen] * PHRASINGS + phrased

    def texts(self, numbers: Tensor, emptied: Tensor) -> dict[str, Tensor]:
        """Return the encoded captions (B, ...), the empty one where `emptied` (B,) says so."""
        given = {}
        for name, states in self.read.items():
            mask = emptied.view(-1, *(1,) * (states.ndim - 1))
            given[name] = torch.where(mask, self.empty[name], states[numbers].float())
        return {**given, "txt_ids": self.empty["txt_ids"]}


def velocity(
    transformer: FluxTransformer2DModel,
    data: Data,
    noisy: Tensor,
    sigma: Tensor,
    guidance: Tensor,
    texts: dict[str, Tensor],
) -> Tensor:
    """Predict eps - x_0 at noise levels (B,), under guidance scales (B,), called as FluxPipeline calls it."""
    device = transformer.device
    # On CPU the fused attention's backward pass is slower than the rest of the network together.
    backend = SDPBackend.MATH if device.type == "cpu" else SDPBackend.FLASH_ATTENTION
    given = {
        "hidden_states": noisy,
        "timestep": sigma,
        "guidance": guidance,
        "img_ids": data.img_ids,
        **texts,
    }
    with torch.autocast(device.type, dtype=torch.bfloat16), sdpa_kernel(backend):
        output: Tensor = transformer(
            **{name: tensor.to(device) for name, tensor in given.items()}, return_dict=False
        )[0]
    return output.float()


def teacher_loss(transformer: FluxTransformer2DModel, data: Data) -> Loss:
    """Return the loss of one step of the teacher: mean squared error of the velocity."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        clean, noise, sigma, captions = data.draw(generator)
        emptied = torch.rand(BATCH, generator=generator) < 0.125
        level = sigma.view(-1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        texts = data.texts(captions, emptied)
        found = velocity(transformer, data, noisy, sigma, torch.ones(BATCH), texts)
        return (found - (noise - clean).to(found.device)).square().mean()

    return loss


def student_loss(student: FluxTransformer2DModel, teacher: FluxTransformer2DModel, data: Data) -> Loss:
    """Return the loss of one step of the student: mean squared error to the teacher's guided velocity."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        clean, noise, sigma, captions = data.draw(generator)
        low, high = SCALES
        scale = low + (high - low) * torch.rand(BATCH, generator=generator)
        level = sigma.view(-1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        every = torch.ones(BATCH, dtype=torch.bool)
        texts, nothing = data.texts(captions, ~every), data.texts(captions, every)
        with torch.no_grad():
            plain = torch.ones(BATCH)
            cond = velocity(teacher, data, noisy, sigma, plain, texts)
            uncond = velocity(teacher, data, noisy, sigma, plain, nothing)
            target = uncond + scale.view(-1, 1, 1).to(uncond.device) * (cond - uncond)
        found = velocity(student, data, noisy, sigma, scale, texts)
        return (found - target).square().mean()

    return loss
