"""Quantised networks are told apart by the values that they compute with, or not at all."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from budc.compiler.denoisers.identity import module_identity  # noqa: E402
from budc.schema.errors import UnsupportedModel  # noqa: E402


def test_weights_of_a_quantisation_library_tell_networks_apart() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    identities = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(16, 16))
        torchao.quantize_(network, torchao.Int8WeightOnlyConfig())
        identities.append(module_identity(network))
    assert identities[0] == identities[1] != identities[2]


def test_weights_packed_in_an_object_cannot_tell_networks_apart() -> None:
    class Packed(nn.Linear):
        def get_extra_state(self) -> object:
            return ("weights",)

    with pytest.raises(UnsupportedModel, match="_extra_state is a tuple, whose values cannot be read"):
        module_identity(Packed(2, 2))
