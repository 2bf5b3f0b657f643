"""Whether a network is quantised as a policy's was, from the same weights."""

from torch import nn

from budc.policies.quantization import KINDS
from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.sampling.quantized import cast_storage, quantization_of, values_root
from budc.schema.errors import WeightsMismatch
from budc.schema.policy import DenoiserBinding


def check_quantization(transformer: nn.Module, denoiser: DenoiserBinding, settings: SettingsCheck) -> bool:
    """Check that a network is quantised by the kind of its binding, or not at all; return whether it is.

    Where the kind is another one and uncalibrated runs are allowed, that is recorded.

    Raises:
        WeightsMismatch: the kind is another one; the message names both.
    """
    if denoiser.quantization is None and cast_storage(transformer) is not None:
        # Plain weights in another dtype: the check of precision names both.
        return True
    expected = denoiser.quantization.kind if denoiser.quantization else None
    actual = quantization_of(transformer)
    if actual == expected:
        return True
    found = "is not quantised" if actual is None else f"is quantised ({actual})"
    wanted = "the weights as published" if expected is None else f"quantisation by {expected}"
    what = f"{denoiser.name} {found}, the policy is for {wanted}"
    if not settings.allow:
        raise WeightsMismatch(what, remedy=_remedy(expected))
    settings.differ("weights", what)
    return False


def verify_values(transformer: nn.Module, denoiser: DenoiserBinding) -> None:
    """Check the values that a quantised network computes with.

    Raises:
        WeightsMismatch: they are others: of other weights, or other layers were quantised.
    """
    quantization = denoiser.quantization
    if quantization is None:
        return
    root = values_root(transformer)
    if root != quantization.values:
        raise WeightsMismatch(
            f"{denoiser.name}: its values, quantised by {quantization.kind}, have tensor root {root[7:19]}…, "
            f"the policy is for {quantization.values[7:19]}…",
            remedy=_remedy(quantization.kind),
        )


def _remedy(kind: str | None) -> str:
    if kind is None:
        return "load the model without quantisation"
    how = KINDS.get(kind, kind)
    return f"load it with budc.load_pipeline(MODEL, quantize={kind!r}): {how}"
