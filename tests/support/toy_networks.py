"""Small networks and pairs of functions for a compile on tensors."""

import torch
from torch import nn


class Blocks(nn.Module):
    """A small network with two equal lists of blocks, one of which is its trunk."""

    def __init__(self, seed=0, gain=1.0, trunk="blocks"):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.others = nn.ModuleList(nn.Linear(3, 3) for _ in range(2))
        self.register_buffer("shift", torch.zeros(3), persistent=False)
        self.gain, self.trunk = gain, trunk

    def forward(self, latents, timestep, condition):
        hidden = latents + condition + self.shift
        for block in getattr(self, self.trunk):
            hidden = hidden + torch.tanh(block(hidden))
        return self.gain * hidden


def pair(gain):
    def reuse(residual, latents, timestep, condition):
        return latents - residual

    def compute(latents, timestep, condition):
        residual = gain * torch.tanh(condition - latents)
        return latents - residual, residual

    return compute, reuse
