"""A clock that only the network's work moves, and what progress says is left on it.

With such a clock a compile can be replayed on any machine, however busy: the time that is left can be compared with the
time that was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

import budc.progress
from budc.progress import Bar, remaining_work
from budc.progress.displays import Display

TRAINED = 2
"""What a forward counts as that is trained through. Each is there twice, as steps are checkpointed, and a backward
takes as long as two."""


class Said(NamedTuple):
    """How far the clock was when a pass said what is left of all, and what it said."""

    label: str
    now: float
    left: float | None


class _Listener(Display):
    def __init__(self, clock: ForwardClock) -> None:
        self._clock = clock

    def advanced(self, bar: Bar) -> None:
        self._clock.said.append(Said(bar.label, self._clock.now, bar.all_left))


class ForwardClock:
    """Counts what the transformer blocks of Wan compute: sequences times tokens, a backward as two of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self.said: list[Said] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Be the clock of progress for the length of a with-block, and listen to what is said."""
        import torch
        from diffusers import AutoencoderKLWan
        from diffusers.models.transformers.transformer_wan import WanTransformerBlock

        compute, decode = WanTransformerBlock.forward, AutoencoderKLWan.decode
        last = [0.0]

        def counted(block: Any, hidden_states: Any, *rest: Any, **named: Any) -> Any:
            last[0] = hidden_states.shape[1]
            trains = torch.is_grad_enabled()
            self.now += hidden_states.shape[0] * last[0] * (TRAINED if trains else 1)
            return compute(block, hidden_states, *rest, **named)

        def decoded(vae: Any, latents: Any, *rest: Any, **named: Any) -> Any:
            self.now += 2 * len(latents) * last[0]
            return decode(vae, latents, *rest, **named)

        token = budc.progress._display.set(_Listener(self))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(WanTransformerBlock, "forward", counted)
            patch.setattr(AutoencoderKLWan, "decode", decoded)
            patch.setattr(remaining_work.time, "monotonic", lambda: self.now)
            try:
                yield
            finally:
                budc.progress._display.reset(token)

    def misses(self, factor: float, first: float = 0.1, grace: float = 0.02) -> list[str]:
        """Return what was said after the `first` share of the way and is not within a factor of what was left.

        In the end any figure is far from nothing, so this share of the whole is forgiven. Of what is said at one time,
        as several candidates are rolled out together, the last stands.
        """
        slack = grace * self.now
        missed = []
        for label, now, left in {said.now: said for said in self.said}.values():
            if now < first * self.now:
                continue
            true = self.now - now
            if left is None or not true / factor - slack <= left <= true * factor + slack:
                said = "nothing" if left is None else f"{left / self.now:.1%}"
                missed.append(f"{label} at {now / self.now:.1%}: {said} left, was {true / self.now:.1%}")
        return missed
