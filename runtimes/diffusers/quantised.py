"""Whether a model is quantised: its weights are no plain tensors of numbers, so no digest can tell what they are."""

from torch import Tensor, nn

from budc.runtimes.diffusers.own_layers import PLAIN


def quantised_tensor(transformer: nn.Module) -> str | None:
    """Describe the first entry of the state that is no plain tensor of numbers; None where all are.

    Quantisation libraries keep weights in tensor classes of their own, in integers, or packed in other objects.
    """
    for name, value in transformer.state_dict(keep_vars=True).items():
        if not isinstance(value, Tensor):
            return f"{name} is a {type(value).__name__}"
        weight = isinstance(value, nn.Parameter)
        if type(value) not in PLAIN or value.is_quantized or (weight and not value.dtype.is_floating_point):
            return f"{name} is a {type(value).__name__} of {str(value.dtype).removeprefix('torch.')}"
    return None
