"""Trunk: the blocks of a network of ComfyUI, run and recorded, or left out of one forward.

    r = h_out - h_in            recorded while the blocks run
    h_out ≈ h_in + r̂            in their place

h_in is the hidden state of the image's tokens before the first block, h_out the one after the last, both (batch,
tokens, channels), as in `budc.runtimes.sampling.trunk`. ComfyUI's networks are called by keyword, put text before the
image in one sequence, number their blocks for other nodes, and are shared by all clones of a model. So nothing is
installed in them but for the length of a forward, and a computed forward sees its own blocks at their own numbers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from budc.runtimes.comfyui.families import BlockList, EngineFamily
from budc.schema.errors import RefusedRun

Forward = Callable[[], Tensor]


class EngineTrunk:
    """Runs forwards of `network` with its blocks (`compute`) or without them (`reuse`)."""

    def __init__(self, network: nn.Module, family: EngineFamily) -> None:
        self._network = network
        self._family = family

    def compute(self, forward: Forward) -> tuple[Tensor, Tensor]:
        """Run `forward`; return what it returns, and the residual of its blocks.

        Raises:
            RefusedRun: the network ran no blocks, or ran them twice.
        """
        recorded: list[Tensor] = []
        with self._recording(recorded):
            output = forward()
        if len(recorded) != 1:
            raise RefusedRun(
                f"the blocks of {self._family.network} ran {len(recorded)} times in one forward",
                remedy="remove the other node that runs or skips them",
            )
        return output, recorded[0]

    def reuse(self, cached: Tensor, forward: Forward) -> Tensor:
        """Run `forward` with `cached`, (batch, tokens, channels), in place of the blocks; return what it returns."""
        first, last = self._family.first, self._family.last
        lists: dict[str, nn.Module | None] = {first.name: nn.ModuleList()}
        lists[last.name] = nn.ModuleList([_CachedBlocks(last, cached)])
        modules = self._network._modules
        original = {name: modules[name] for name in lists}
        modules.update(lists)
        try:
            return forward()
        finally:
            modules.update(original)

    @contextmanager
    def _recording(self, recorded: list[Tensor]) -> Iterator[None]:
        first, last = self._family.first, self._family.last
        entering: list[Tensor] = []
        tokens: list[int] = []

        def lead(_module: nn.Module, _args: Any, output: Tensor) -> None:
            tokens.append(output.shape[1])

        def enter(_module: nn.Module, args: Any, kwargs: Any) -> None:
            hidden = _hidden(first, args, kwargs)
            tokens.append(hidden.shape[1])
            # Blocks add to the hidden state in place.
            entering.append(hidden[:, -tokens[0] :].clone())

        def leave(_module: nn.Module, _args: Any, output: Any) -> None:
            hidden: Tensor = output if last.output is None else output[last.output]
            recorded.append(hidden[:, -tokens[0] :] - entering[0])

        handles = [
            self._blocks(first.name)[0].register_forward_pre_hook(enter, with_kwargs=True),
            self._blocks(last.name)[-1].register_forward_hook(leave),
        ]
        if self._family.lead is not None:
            handles.append(self._blocks(self._family.lead)[-1].register_forward_hook(lead))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _blocks(self, name: str) -> Any:
        return getattr(self._network, name)


class _CachedBlocks(nn.Module):
    """Called like the last block of a network: adds the cached residual to the image's tokens."""

    def __init__(self, blocks: BlockList, cached: Tensor) -> None:
        super().__init__()
        self._blocks, self._cached = blocks, cached

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the hidden state, with the text where the blocks return both."""
        hidden = _hidden(self._blocks, args, kwargs)
        tokens = self._cached.shape[1]
        text, image = hidden[:, :-tokens], hidden[:, -tokens:] + self._cached
        hidden = torch.cat((text, image), dim=1) if text.shape[1] else image
        if self._blocks.output is None:
            return hidden
        other = kwargs[str(self._blocks.text)]
        return (hidden, other) if self._blocks.output == 0 else (other, hidden)


def _hidden(blocks: BlockList, args: Any, kwargs: Any) -> Tensor:
    hidden: Tensor = args[0] if blocks.hidden is None else kwargs[blocks.hidden]
    return hidden
