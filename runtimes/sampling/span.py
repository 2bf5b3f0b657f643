"""Block lists that can be skipped for one forward, and the markers that replace their blocks.

What iterating over the lists yields depends on the mode of their `Gate`:

- "compute": the blocks, with a marker before the first that keeps h_in and one after the last that caches the residual,
  or the output itself.
- "reuse": no block, or the first ones, and one marker that adds the cached residual, or returns the cached output.
- "off": the blocks.

A list that leads to the trunk yields its blocks in every mode, after a marker that counts tokens.
`budc.runtimes.sampling.trunk` installs and removes them.
"""

from collections.abc import Callable, Iterator
from typing import Any, Literal

from torch import Tensor, nn

from budc.runtimes.sampling.families import Span
from budc.schema.errors import RefusedRun, UnsupportedModel
from budc.schema.policy import Payload

Mode = Literal["off", "compute", "reuse"]


class Gate:
    """What the markers of one transformer share: the mode, and the cached tensor that they use or record.

    `payload` names the kind of tensor. `cached` is what a reused forward uses, `recorded` what a computed one has
    produced. Both hold the first `tokens` tokens of the sequence; None means all. The first `first_blocks` blocks run
    in a reused forward too, and the trunk begins after them.
    """

    def __init__(self, payload: Payload, first_blocks: int = 0) -> None:
        self.payload = payload
        self.first_blocks = first_blocks
        self.set("off")

    def set(self, mode: Mode, cached: Tensor | None = None) -> None:
        """Enter a mode and forget the forward before."""
        self.mode: Mode = mode
        self.cached = cached
        self.entering: Tensor | None = None
        self.recorded: Tensor | None = None
        self.tokens: int | None = None

    def record(self, cached: Tensor) -> None:
        """Keep what a computed forward produced; refuse a second one, which would overwrite it."""
        if self.recorded is not None:
            raise RefusedRun(
                "the transformer ran twice in one step of one branch",
                remedy="do not split a batch over several forwards while a policy is applied",
            )
        self.recorded = cached


class Marker:
    """Called like a block, returns `action(h)` in the form that a block returns h."""

    def __init__(self, action: Callable[[Tensor], Tensor], returns: str) -> None:
        self.action = action
        self.returns = returns

    def __call__(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any
    ) -> Any:
        """Return h, (text, h) or (h, text), whichever the family's blocks return."""
        hidden_states = self.action(hidden_states)
        if self.returns == "hidden":
            return hidden_states
        if self.returns == "text, hidden":
            return encoder_hidden_states, hidden_states
        return hidden_states, encoder_hidden_states


class SpanList(nn.ModuleList):
    """A transformer's block list that can be skipped for one forward; only `Trunk` makes and unmakes it.

    Its copies, pickles and slices are plain `ModuleList`s.
    """

    _budc_gate: Gate
    _budc_span: Span

    def __iter__(self) -> Iterator[Any]:
        """Yield the blocks, with markers around them or a marker in their place as the mode asks."""
        gate, span = self._budc_gate, self._budc_span
        if gate.mode == "off":
            return iter(self._modules.values())
        if span.leads:
            return iter(self._leading(gate, span))
        if gate.mode == "compute":
            return iter(self._computing(gate, span))
        return iter(self._reusing(gate, span))

    def _leading(self, gate: Gate, span: Span) -> list[Any]:
        def count(hidden: Tensor) -> Tensor:
            gate.tokens = hidden.shape[1]
            return hidden

        return [Marker(count, span.returns), *self._modules.values()]

    def _computing(self, gate: Gate, span: Span) -> list[Any]:
        blocks: list[Any] = list(self._modules.values())
        if gate.payload == "velocity":
            return blocks

        def enter(hidden: Tensor) -> Tensor:
            gate.entering = hidden
            return hidden

        def leave(hidden: Tensor) -> Tensor:
            entering, own = gate.entering, hidden[:, : gate.tokens]
            assert entering is not None  # the first list's marker ran before the last list's
            gate.entering = None
            if own.shape != entering[:, : gate.tokens].shape:
                raise UnsupportedModel(
                    f"the blocks of {span.name} turn a hidden state of shape {tuple(entering.shape)} into one of "
                    f"{tuple(hidden.shape)}, so that what they add cannot be reused",
                    remedy="name blocks that keep the shape, or pass (compute, reuse), two functions",
                )
            gate.record(own if gate.payload == "trunk-output" else own - entering[:, : gate.tokens])
            return hidden

        if span.first:
            blocks.insert(gate.first_blocks, Marker(enter, span.returns))
        if span.last:
            blocks.append(Marker(leave, span.returns))
        return blocks

    def _reusing(self, gate: Gate, span: Span) -> list[Any]:
        cached = gate.cached
        blocks: list[Any] = list(self._modules.values())[: gate.first_blocks] if span.first else []
        if gate.payload == "velocity" or not span.last or cached is None:
            return blocks
        if gate.payload == "trunk-output":
            return [*blocks, Marker(lambda hidden: cached, span.returns)]
        return [*blocks, Marker(lambda hidden: hidden[:, : gate.tokens] + cached, span.returns)]

    def __getitem__(self, idx: Any) -> Any:
        """Index as a list does; a slice is a plain `ModuleList`, as block-level offloading expects."""
        if isinstance(idx, slice):
            return nn.ModuleList(list(self._modules.values())[idx])
        return super().__getitem__(idx)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Reduce to a plain `ModuleList`: a copy has no policy, and loads where budc is not installed."""
        state = {name: value for name, value in self.__dict__.items() if not name.startswith("_budc_")}
        return nn.ModuleList, (), state


class VelocityHook:
    """Forward hook of the output projection: records the velocity (still in tokens) or replaces it."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        """Return the projection's output, or the cached velocity in its place."""
        if self.gate.mode == "compute":
            self.gate.record(output[:, : self.gate.tokens])
        elif self.gate.mode == "reuse" and self.gate.cached is not None:
            return self.gate.cached
        return output

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Reduce to a hook of its own gate, which stays off: a copied model keeps the hook, without effect."""
        return VelocityHook, (Gate("velocity"),)
