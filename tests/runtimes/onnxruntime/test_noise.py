"""Noise in numpy against torch's."""

import numpy as np
import pytest

from budc.runtimes.onnxruntime.noise import seeded_noise

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("shape", [(1, 16, 3, 8, 8), (16,), (17,), (31,), (5, 7), (1, 3, 1001)])
@pytest.mark.parametrize("seed", [0, 12345, 2**32 - 1, 2**32 + 7, 2**53 - 1])
def test_is_what_torch_draws(shape: tuple[int, ...], seed: int) -> None:
    expected = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()
    drawn = seeded_noise(shape, seed)
    assert drawn.shape == shape
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(drawn, expected, atol=3e-6)


def test_torch_draws_fewer_than_a_block_in_another_way() -> None:
    with pytest.raises(ValueError, match="has 15 values, expected 16 or more"):
        seeded_noise((3, 5), 0)
