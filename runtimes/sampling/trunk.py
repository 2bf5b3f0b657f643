"""Trunk: a transformer whose blocks can be run and recorded, or replaced by what they added before.

    r = h_out - h_in            recorded while the blocks run
    h_out ≈ h_in + r̂            in their place

h_in is the hidden state after patch embedding, h_out the one after the last block, both (batch, tokens,
channels); the model's own forward does everything before and after, so a reused step still embeds its
latents and timestep. Tokens that the output does not depend on (text in the same sequence) are left out of r.

    trunk = Trunk(transformer)
    with trunk.installed():
        velocity, residual = trunk.compute(hidden_states=x, timestep=t, ...)
        velocity = trunk.reuse(residual, hidden_states=x, timestep=t, ...)

How: the instance's block lists become `SpanList`s, which outside of such a call are the lists they were. The
blocks stay where they are, so names, hooks, adapters, offloading and compilation keep working, and computing
returns h_out itself, bit for bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from budc.runtimes.sampling.families import Family, Span, family_of
from budc.runtimes.sampling.span import Gate, SpanList, VelocityHook
from budc.schema.errors import CacheConflict, UnsupportedModel
from budc.schema.policy import Payload


def combine(coefficients: Sequence[float | Tensor], residuals: Sequence[Tensor]) -> Tensor:
    """Return Σ_i coefficients[i] · residuals[i], newest first, in the residuals' dtype.

    Half-precision residuals are added up in float32. Coefficients may be tensors (training, one value per
    sample); a lone 1.0 returns the residual itself.
    """
    newest = residuals[0]
    if len(coefficients) == 1 and isinstance(coefficients[0], float) and coefficients[0] == 1.0:
        return newest
    wide = torch.float32 if newest.dtype in (torch.bfloat16, torch.float16) else newest.dtype
    total = newest.to(wide) * coefficients[0]
    for coefficient, residual in zip(coefficients[1:], residuals[1:], strict=True):
        total = total + residual.to(wide) * coefficient
    return total.to(newest.dtype)


class Trunk:
    """Functional access to a transformer's two modes: blocks computed, or their payload reused.

    `payload` says what is carried: "trunk-residual" (h_out - h_in), or "velocity" (the model's output, as
    tokens before it is put back into latents). Both calls are differentiable in everything they are given
    and keep nothing. `family` describes a transformer that is of none of the known classes.

    Raises:
        UnsupportedModel: no family is known by the transformer's class name.
    """

    def __init__(
        self, transformer: nn.Module, payload: Payload = "trunk-residual", family: Family | None = None
    ) -> None:
        self.transformer = transformer
        self.family: Family = family or family_of(transformer)
        self.gate = Gate(payload)
        self._hook: torch.utils.hooks.RemovableHandle | None = None
        for span, blocks in self._lists:
            if not isinstance(blocks, nn.ModuleList):
                raise UnsupportedModel(
                    f"{type(transformer).__name__}.{span.name} is not a list of blocks "
                    f"but {type(blocks).__name__}"
                )

    @property
    def _lists(self) -> list[tuple[Span, Any]]:
        # Looked up at every call: a list may have been replaced since.
        lead = self.family.lead
        spans = self.family.spans if lead is None else (lead, *self.family.spans)
        return [(span, getattr(self.transformer, span.name, None)) for span in spans]

    @property
    def is_installed(self) -> bool:
        """Whether this trunk's block lists are in place."""
        return all(
            isinstance(blocks, SpanList) and blocks._budc_gate is self.gate for _, blocks in self._lists
        )

    def install(self) -> None:
        """Put the spanning lists in place, on this instance only.

        Raises:
            CacheConflict: something else (another cache, another trunk) already stands in for the block
                lists.
        """
        for span, blocks in self._lists:
            if type(blocks) is not nn.ModuleList:
                raise CacheConflict(
                    f"{type(self.transformer).__name__}.{span.name} is already replaced by a "
                    f"{type(blocks).__name__}",
                    remedy="remove the other cache or policy from the transformer first",
                )
        for span, blocks in self._lists:
            blocks.__class__ = SpanList
            blocks.__dict__.update(_budc_gate=self.gate, _budc_span=span)
        if self.gate.payload == "velocity":
            projection = self.transformer.get_submodule(self.family.projection)
            self._hook = projection.register_forward_hook(VelocityHook(self.gate))

    def uninstall(self) -> None:
        """Leave the transformer exactly as `install` found it. Harmless when nothing is installed."""
        self.disarm()
        for _, blocks in self._lists:
            if isinstance(blocks, SpanList) and blocks._budc_gate is self.gate:
                del blocks.__dict__["_budc_gate"], blocks.__dict__["_budc_span"]
                blocks.__class__ = nn.ModuleList  # type: ignore[assignment]
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @contextmanager
    def installed(self) -> Iterator["Trunk"]:
        """Install for the length of a with-block; nested in another one of the same trunk, do nothing."""
        if self.is_installed:
            yield self
            return
        self.install()
        try:
            yield self
        finally:
            self.uninstall()

    def arm_compute(self) -> None:
        """Let the next forward compute its blocks and record the payload for `disarm`."""
        self.gate.set("compute")

    def arm_reuse(self, payload: Tensor) -> None:
        """Let the next forward skip its blocks and use `payload`."""
        self.gate.set("reuse", payload)

    def disarm(self) -> Tensor | None:
        """Return to the untouched forward; return what a computed forward recorded, else None."""
        recorded = self.gate.recorded
        self.gate.set("off")
        return recorded

    def compute(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Run the transformer's forward on keyword `inputs`; return (output, payload).

        The output, which is the velocity, is bit-equal to the untouched forward's; some transformers return it as
        a list of samples.
        """
        self._check(inputs)
        with self.installed():
            self.arm_compute()
            try:
                velocity = self.transformer(**inputs, return_dict=False)[0]
            finally:
                recorded = self.disarm()
        assert recorded is not None
        return velocity, recorded

    def reuse(self, payload: Tensor, **inputs: Any) -> Tensor:
        """Run the forward with `payload` in place of the blocks (or of the output); return the velocity."""
        self._check(inputs)
        with self.installed():
            self.arm_reuse(payload)
            try:
                velocity: Tensor = self.transformer(**inputs, return_dict=False)[0]
            finally:
                self.disarm()
        return velocity

    def _check(self, inputs: dict[str, Any]) -> None:
        for name in self.family.refused_inputs:
            if inputs.get(name) is not None:
                raise UnsupportedModel(
                    f"{type(self.transformer).__name__} was given {name}, which enters between the blocks",
                    remedy="run without ControlNet; its residuals cannot be reused with the trunk's",
                )
