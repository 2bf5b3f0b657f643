"""Trunk: a transformer whose blocks are run and recorded, or skipped and replaced by what they added before.

    r = h_out - h_in            recorded while the blocks run
    h_out ≈ h_in + r̂            in their place; with the payload trunk-output, ĥ_out itself

h_in is the hidden state after patch embedding, h_out the one after the last block, both (batch, tokens,
channels); the model's own forward does everything before and after, so a reused step still embeds its
latents and timestep. Tokens that the output does not depend on (text in the same sequence) are left out of r.

    trunk = Trunk(transformer)
    with trunk.installed():
        velocity, cached = trunk.compute(hidden_states=x, timestep=t, ...)
        velocity = trunk.reuse(cached, hidden_states=x, timestep=t, ...)

How: the instance's block lists become `SpanList`s, which behave as before outside of such a call. The blocks stay
where they are, so names, hooks, adapters, offloading and compilation keep working, and a computed forward returns
h_out itself, bit for bit.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from budc.runtimes.sampling.families import Family, Span, family_of
from budc.runtimes.sampling.span import Gate, SpanList, VelocityHook
from budc.schema.errors import CacheConflict, UnsupportedModel
from budc.schema.policy import Payload


def combine(coefficients: Sequence[float | Tensor], cached: Sequence[Tensor]) -> Tensor:
    """Return Σ_i coefficients[i] · cached[i], newest first, in the dtype of the cached tensors.

    Half-precision tensors are added up in float32. Coefficients may be tensors (in training, one value per sample).
    A single coefficient of 1.0 returns the cached tensor itself.
    """
    newest = cached[0]
    if len(coefficients) == 1 and isinstance(coefficients[0], float) and coefficients[0] == 1.0:
        return newest
    wide = torch.float32 if newest.dtype in (torch.bfloat16, torch.float16) else newest.dtype
    total = newest.to(wide) * coefficients[0]
    for coefficient, tensor in zip(coefficients[1:], cached[1:], strict=True):
        total = total + tensor.to(wide) * coefficient
    return total.to(newest.dtype)


class Trunk:
    """Functional access to a transformer's two modes: blocks computed, or skipped and a cached tensor reused.

    `payload` names what is cached: "trunk-residual" (h_out - h_in), "trunk-output" (h_out), or "velocity" (the model's
    output, as tokens before they are put back into latents). `compute` and `reuse` are differentiable in all their
    tensors and keep none of them. `family` describes a transformer whose class is in no known family. So many
    `first_blocks` are left out of the trunk, as some engines do: they run when it is reused, too.

    Raises:
        UnsupportedModel: no family is known by the transformer's class name.
    """

    def __init__(
        self,
        transformer: nn.Module,
        payload: Payload = "trunk-residual",
        family: Family | None = None,
        first_blocks: int = 0,
    ) -> None:
        self.transformer = transformer
        self.family: Family = family or family_of(transformer)
        self.gate = Gate(payload, first_blocks)
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
        """Whether the transformer's block lists are those of this trunk."""
        return all(
            isinstance(blocks, SpanList) and blocks._budc_gate is self.gate for _, blocks in self._lists
        )

    def install(self) -> None:
        """Turn the block lists of this instance into `SpanList`s.

        Raises:
            CacheConflict: another cache, or another trunk, has replaced them already.
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
        self._hook_projection()

    def use(self, payload: Payload) -> None:
        """Cache another payload from now on, installed or not; what was recorded is forgotten."""
        self.clear()
        if payload == self.gate.payload:
            return
        self.gate.payload = payload
        if self.is_installed:
            self._unhook()
            self._hook_projection()

    def uninstall(self) -> None:
        """Put the transformer back exactly as it was before `install`; do nothing when not installed."""
        self.clear()
        for _, blocks in self._lists:
            if isinstance(blocks, SpanList) and blocks._budc_gate is self.gate:
                del blocks.__dict__["_budc_gate"], blocks.__dict__["_budc_span"]
                blocks.__class__ = nn.ModuleList  # type: ignore[assignment]
        self._unhook()

    def _hook_projection(self) -> None:
        if self.gate.payload == "velocity":
            projection = self.transformer.get_submodule(self.family.projection)
            self._hook = projection.register_forward_hook(VelocityHook(self.gate))

    def _unhook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    @contextmanager
    def installed(self) -> Iterator["Trunk"]:
        """Install for the length of a with-block; do nothing where this trunk is installed already."""
        if self.is_installed:
            yield self
            return
        self.install()
        try:
            yield self
        finally:
            self.uninstall()

    def set_compute(self) -> None:
        """Let the next forward run its blocks and record what is to be cached, which `clear` returns."""
        self.gate.set("compute")

    def set_reuse(self, cached: Tensor) -> None:
        """Let the next forward skip its blocks and use `cached`."""
        self.gate.set("reuse", cached)

    def clear(self) -> Tensor | None:
        """Go back to the plain forward; return what a computed forward recorded, else None."""
        recorded = self.gate.recorded
        self.gate.set("off")
        return recorded

    def compute(self, **inputs: Any) -> tuple[Tensor, Tensor]:
        """Run the transformer's forward on keyword `inputs`; return (velocity, what is to be cached).

        The velocity is bit-equal to the plain forward's; some transformers return it as a list of samples.

        Raises:
            UnsupportedModel: an input enters between the blocks (ControlNet), so the blocks cannot be skipped.
        """
        self.check_inputs(inputs)
        with self.installed():
            self.set_compute()
            try:
                velocity = self.transformer(**inputs, return_dict=False)[0]
            finally:
                recorded = self.clear()
        assert recorded is not None
        return velocity, recorded

    def reuse(self, cached: Tensor, **inputs: Any) -> Tensor:
        """Run the forward with `cached` in place of the blocks (or of the output); return the velocity.

        Raises:
            UnsupportedModel: see `compute`.
        """
        self.check_inputs(inputs)
        with self.installed():
            self.set_reuse(cached)
            try:
                velocity: Tensor = self.transformer(**inputs, return_dict=False)[0]
            finally:
                self.clear()
        return velocity

    def check_inputs(self, inputs: Mapping[str, Any]) -> None:
        """Check the inputs of a forward that is not plain, by name.

        Raises:
            UnsupportedModel: one of them enters between the blocks.
        """
        for name in self.family.refused_inputs:
            if inputs.get(name) is not None:
                raise UnsupportedModel(
                    f"{type(self.transformer).__name__} was given {name}, which enters between the blocks",
                    remedy="run without ControlNet: what it adds between the blocks is lost where they are skipped",
                )
