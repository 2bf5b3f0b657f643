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
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from budc.policies.nano.captions import train_phrase
from budc.policies.nano.fit import Loss, Recipe
from budc.policies.nano.flux_latents import positions
from budc.policies.nano.flux_text import Texts
from budc.policies.nano.pictures import Picture, phrase

TEACHER = Recipe(steps=12_000, matrix_lr=0.01, other_lr=2e-3, average=0.9995)
STUDENT = Recipe(steps=3_000, matrix_lr=0.004, other_lr=8e-4, average=0.998)
BATCH = 64
SHIFT = 2.0
"""Noise levels are drawn with density shifted towards noise, where a picture is decided."""
SCALES = (1.0, 6.0)
"""Range of the guidance scales that the student learns."""


class Data:
    """Packed latents (N, cells, 4C), what each shows, and the encoders that read its captions."""

    def __init__(self, latents: Tensor, pictures: list[Picture], texts: Texts) -> None:
        self.latents, self.pictures, self.texts = latents, pictures, texts
        side = int(latents.shape[1] ** 0.5)
        self.img_ids = positions(side, side)

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, list[str]]:
        """Draw a batch: clean latents, noise, noise levels (B,), captions phrased anew in the train split."""
        chosen = torch.randint(len(self.pictures), (BATCH,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
        texts = [train_phrase(self.pictures[index], rng, phrase) for index in chosen.tolist()]
        clean = self.latents[chosen].float()
        noise = torch.randn(clean.shape, generator=generator)
        uniform = torch.rand(BATCH, generator=generator)
        return clean, noise, SHIFT * uniform / (1 + (SHIFT - 1) * uniform), texts


def velocity(
    transformer: FluxTransformer2DModel,
    data: Data,
    noisy: Tensor,
    sigma: Tensor,
    guidance: Tensor,
    texts: list[str],
) -> Tensor:
    """Predict eps - x_0 at noise levels (B,), under guidance scales (B,), called as FluxPipeline calls it."""
    device = transformer.device
    # On CPU the fused attention's backward pass is slower than the rest of the network together.
    backend = SDPBackend.MATH if device.type == "cpu" else SDPBackend.FLASH_ATTENTION
    read = data.texts(texts)
    with torch.autocast(device.type, dtype=torch.bfloat16), sdpa_kernel(backend):
        output: Tensor = transformer(
            hidden_states=noisy.to(device),
            timestep=sigma.to(device),
            guidance=guidance.to(device),
            img_ids=data.img_ids.to(device),
            return_dict=False,
            **read,
        )[0]
    return output.float()


def teacher_loss(transformer: FluxTransformer2DModel, data: Data) -> Loss:
    """Return the loss of one step of the teacher: mean squared error of the velocity."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        clean, noise, sigma, texts = data.draw(generator)
        emptied = torch.rand(BATCH, generator=generator) < 0.125
        texts = ["" if empty else text for text, empty in zip(texts, emptied.tolist(), strict=True)]
        level = sigma.view(-1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        found = velocity(transformer, data, noisy, sigma, torch.ones(BATCH), texts)
        return (found - (noise - clean).to(found.device)).square().mean()

    return loss


def student_loss(student: FluxTransformer2DModel, teacher: FluxTransformer2DModel, data: Data) -> Loss:
    """Return the loss of one step of the student: mean squared error to the teacher's guided velocity."""

    def loss(step: int, generator: torch.Generator) -> Tensor:
        clean, noise, sigma, texts = data.draw(generator)
        low, high = SCALES
        scale = low + (high - low) * torch.rand(BATCH, generator=generator)
        level = sigma.view(-1, 1, 1)
        noisy = (1 - level) * clean + level * noise
        with torch.no_grad():
            plain = torch.ones(BATCH)
            with_text = velocity(teacher, data, noisy, sigma, plain, texts)
            without = velocity(teacher, data, noisy, sigma, plain, [""] * BATCH)
            target = without + scale.view(-1, 1, 1).to(without.device) * (with_text - without)
        found = velocity(student, data, noisy, sigma, scale, texts)
        return (found - target).square().mean()

    return loss
