"""The trunk on stand-ins: small networks that call their blocks as those of ComfyUI's engine do.

Tests on the engine itself are in the folder `engine`.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from budc.runtimes.comfyui.families import ENGINE_FAMILIES
from budc.runtimes.comfyui.trunk import EngineTrunk
from budc.schema.errors import RefusedRun


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 4)

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        # In place, as FLUX's blocks are.
        x += self.mix(x).roll(1, dims=1)
        return x


class DoubleBlock(Block):
    def forward(self, img: Tensor, txt: Tensor, **_: Any) -> Any:
        img += self.mix(img) + txt.mean(1, keepdim=True)
        txt += self.mix(txt)
        return img, txt


class Flux(nn.Module):
    """Blocks by keyword, then blocks on text and image in one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.double_blocks = nn.ModuleList([DoubleBlock(), DoubleBlock()])
        self.single_blocks = nn.ModuleList([Block(), Block()])
        self.numbers: list[int] = []

    def forward(self, img: Tensor, txt: Tensor) -> Tensor:
        img, txt = img * 2, txt * 3
        for number, block in enumerate(self.double_blocks):
            self.numbers.append(number)
            img, txt = block(img=img, txt=txt, vec=None)
        both = torch.cat((txt, img), 1)
        for number, block in enumerate(self.single_blocks):
            self.numbers.append(number)
            both = block(both, vec=None)
        return both[:, txt.shape[1] :]


class NextDiT(nn.Module):
    """A list before the trunk that sees the image alone, then text and image in one sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.noise_refiner = nn.ModuleList([Block()])
        self.layers = nn.ModuleList([Block(), Block()])

    def forward(self, img: Tensor, txt: Tensor) -> Tensor:
        img = img * 1
        for layer in self.noise_refiner:
            img = layer(img)
        both = torch.cat((txt, img), 1)
        for layer in self.layers:
            both = layer(both)
        return both[:, txt.shape[1] :]


class QwenImageTransformer2DModel(nn.Module):
    """Blocks by keyword that return text first."""

    def __init__(self) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList([DoubleBlock(), DoubleBlock()])

        for block in self.transformer_blocks:
            block.forward = self._renamed(block.forward)

    @staticmethod
    def _renamed(forward: Any) -> Any:
        def call(hidden_states: Tensor, encoder_hidden_states: Tensor) -> Any:
            return forward(hidden_states, encoder_hidden_states)[::-1]

        return call

    def forward(self, img: Tensor, txt: Tensor) -> Tensor:
        img, txt = img * 1, txt * 1
        for block in self.transformer_blocks:
            txt, img = block(hidden_states=img, encoder_hidden_states=txt)
        return img


class WanModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, img: Tensor, txt: Tensor) -> Tensor:
        img = img * 1
        for block in self.blocks:
            img = block(img, context=txt)
        return img


NETWORKS = (Flux, NextDiT, QwenImageTransformer2DModel, WanModel)


@pytest.fixture(params=NETWORKS, ids=[network.__name__ for network in NETWORKS])
def network(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    return request.param().requires_grad_(False)


def trunk_of(network: nn.Module) -> EngineTrunk:
    name = type(network).__name__
    return EngineTrunk(network, next(f for f in ENGINE_FAMILIES.values() if f.network == name))


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, 4, generator=generator), torch.randn(2, 3, 4, generator=generator)


def test_a_computed_forward_is_the_plain_one_and_its_residual_gives_it_back(network: Any) -> None:
    img, txt = inputs()
    plain = network(img, txt)
    trunk = trunk_of(network)
    output, residual = trunk.compute(lambda: network(img, txt))
    assert torch.equal(output, plain)
    assert residual.shape == img.shape
    torch.testing.assert_close(trunk.reuse(residual, lambda: network(img, txt)), plain)


def test_a_reused_forward_runs_no_block_and_leaves_the_network_as_it_was(network: Any) -> None:
    img, txt = inputs()
    before = dict(network._modules)
    trunk = trunk_of(network)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    led = [*network.noise_refiner] if isinstance(network, NextDiT) else []
    ran: list[nn.Module] = []
    for block in blocks:
        block.register_forward_hook(lambda module, *_: ran.append(module))
    trunk.reuse(torch.zeros_like(img), lambda: network(img, txt))
    assert ran == led
    assert network._modules == before
    with pytest.raises(ZeroDivisionError):
        trunk.reuse(torch.zeros_like(img), lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert network._modules == before


def test_blocks_keep_their_numbers_in_a_computed_forward() -> None:
    network = Flux().requires_grad_(False)
    trunk_of(network).compute(lambda: network(*inputs()))
    assert network.numbers == [0, 1, 0, 1]


@pytest.mark.parametrize("times", [0, 2])
def test_a_forward_that_runs_the_blocks_another_number_of_times_is_refused(times: int) -> None:
    network = WanModel().requires_grad_(False)

    def forward() -> Tensor:
        return sum((network(*inputs()) for _ in range(times)), torch.zeros(()))

    with pytest.raises(RefusedRun, match=f"ran {times} times in one forward"):
        trunk_of(network).compute(forward)
    assert not network.blocks[0]._forward_pre_hooks
