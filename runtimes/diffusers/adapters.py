"""The adapters that a policy was made with, against those that are loaded into a transformer."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.model_record import sampled_values
from budc.runtimes.sampling.adapters import ActiveAdapter, active_adapters
from budc.schema.policy import PolicyDocument, ScaledAdapter

_FIELD = "adapters"
_LOAD = "load the policy's files: pipe.load_lora_weights(FILE, adapter_name=NAME), pipe.set_adapters(NAMES, SCALES)"
_UNLOAD = "unload or disable the adapters"


class _Difference(NamedTuple):
    field: str
    what: str
    remedy: str


def check_adapter_scale(document: PolicyDocument, given: Mapping[str, Any], settings: SettingsCheck) -> None:
    """Check the factor by which a call of the pipeline scales all adapters, where the policy lists theirs.

    Raises:
        CalibrationMismatch: it is not 1.
    """
    if not document.model.adapters.scaled:
        return
    for argument in ("attention_kwargs", "joint_attention_kwargs"):
        scale = (given.get(argument) or {}).get("scale", 1.0)
        settings.require(f"{argument}['scale']", 1.0, float(scale), "leave it out")


class AdapterCheck:
    """Checks the adapters that are active on one denoiser against the policy's rule.

    What an adapter adds is hashed where it is first seen, and again where a scale or one of a few of its values has
    changed since.
    """

    def __init__(self, document: PolicyDocument, denoiser: str, transformer: Any) -> None:
        self._rule = document.model.adapters
        self._scaled = [other for other in self._rule.scaled if other.denoiser in (None, denoiser)]
        self._transformer = transformer
        self._seen: _State | None = None
        self._differences: tuple[_Difference, ...] = ()

    def __call__(self, settings: SettingsCheck) -> None:
        """Check the adapters that are active now.

        Raises:
            CalibrationMismatch: one is missing, one too many, of other weights, or at another scale.
        """
        if self._rule.rule == "any":
            return
        active = active_adapters(self._transformer)
        if self._scaled:
            state = _state(active)
            if self._seen is None or not state.continues(self._seen):
                self._differences = tuple(_differences(self._scaled, list(active.values())))
            self._seen = state
        else:
            self._differences = tuple(self._unwanted(active))
        for difference in self._differences:
            settings.differ(*difference)

    def _unwanted(self, active: Mapping[str, ActiveAdapter]) -> Iterator[_Difference]:
        names = ", ".join(active)
        if active and self._rule.digests:
            what = (
                f"the policy lists adapters by file digest, which cannot be read off a loaded one ({names})"
            )
            yield _Difference(_FIELD, what, _UNLOAD)
        elif active:
            yield _Difference(_FIELD, f"the policy was calibrated for none, this run has {names}", _UNLOAD)


class _State(NamedTuple):
    """What tells cheaply whether adapters may have changed. Values that are not in memory are not among them."""

    scales: dict[str, tuple[bool, set[float], frozenset[str]]]
    values: dict[str, bytes]

    def continues(self, before: "_State") -> bool:
        """Whether nothing has changed since."""
        known = before.values
        return self.scales == before.scales and all(known.get(k, v) == v for k, v in self.values.items())


def _state(active: Mapping[str, ActiveAdapter]) -> _State:
    return _State(
        {name: (other.merged, other.scales, frozenset(other.tensors)) for name, other in active.items()},
        sampled_values(
            {f"{name} {k}": t for name, other in active.items() for k, t in other.tensors.items()}
        ),
    )


def _differences(expected: Sequence[ScaledAdapter], active: list[ActiveAdapter]) -> Iterator[_Difference]:
    """Yield what is missing, then what is at another scale, then what is too many."""
    if fused := [adapter.name for adapter in active if adapter.merged]:
        what = f"{', '.join(fused)} is fused into the weights, the policy was calibrated with it beside them"
        yield _Difference(_FIELD, what, "pipe.unfuse_lora()")
        return
    if any(tensor.is_meta for adapter in active for tensor in adapter.tensors.values()):
        what = "their values are not in memory, so that nobody can say which they are"
        yield _Difference(_FIELD, what, "apply the policy first, then offload")
        return
    others = {adapter.name: (adapter.root(), adapter) for adapter in active}
    names = ", ".join(others) or "none"
    for wanted in expected:
        same = next((name for name, (root, _) in others.items() if root == wanted.loaded), None)
        if same is None:
            what = (
                f"the policy was calibrated with {wanted.name} (sha256 {wanted.file[:12]}…) at scale "
                f"{wanted.scale:g}, which is none of those loaded ({names})"
            )
            yield _Difference(_FIELD, what, _LOAD)
            continue
        _, adapter = others.pop(same)
        if any(not math.isclose(scale, wanted.scale, rel_tol=1e-6) for scale in adapter.scales):
            actual = ", ".join(f"{scale:g}" for scale in sorted(adapter.scales))
            yield _Difference(
                f"scale of {wanted.name}",
                f"the policy was calibrated for {wanted.scale:g}, this run has {actual}",
                f"pipe.set_adapters with {wanted.scale:g} for {same!r}",
            )
    if others:
        what = f"this run has {', '.join(others)}, with which the policy was not calibrated"
        yield _Difference(_FIELD, what, _UNLOAD)
