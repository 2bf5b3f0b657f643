import math

import pytest
import torch

from budc.compiler.rollouts.metrics import (
    largest_difference,
    latent_errors,
    latent_metric,
    percentile,
    psnrs,
    relative_difference,
)
from budc.schema.psnr import PSNR_CAP


def test_latent_error_is_per_sample():
    reference = torch.zeros(2, 3, 4)
    assert latent_errors(torch.stack([torch.ones(3, 4), torch.full((3, 4), 2.0)]), reference) == [1.0, 4.0]


def test_psnr_of_a_known_error_and_of_equal_frames():
    frames = torch.zeros(2, 3, 4)
    other = torch.stack([torch.full((3, 4), 0.1), torch.zeros(3, 4)])
    low, high = psnrs(other, frames)
    assert low == pytest.approx(20.0, abs=1e-5)
    assert high == PSNR_CAP


def test_summaries():
    metric = latent_metric([1.0, 10.0, 100.0])
    assert metric.mean == 37.0
    assert metric.geometric_mean == pytest.approx(10.0)
    assert metric.worst == metric.p95 == 100.0
    assert metric.standard_error == pytest.approx(math.sqrt(((36**2) + 27**2 + 63**2) / 2 / 3))
    assert latent_metric([0.0, 1.0]).geometric_mean == 0.0


def test_percentile_is_a_value_of_the_sample():
    assert percentile(list(range(1, 101)), 0.95) == 95
    assert percentile([7.0], 0.95) == 7.0


def test_differences_are_the_largest_and_relative_to_the_largest_value():
    expected = torch.tensor([1.0, -4.0, 2.0])
    actual = torch.tensor([1.5, -4.0, 2.25])
    assert largest_difference(actual, expected) == 0.5
    assert relative_difference(actual, expected) == 0.125
    assert relative_difference(expected, expected) == 0.0


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_infinitely_far(wrong):
    fine, broken = torch.tensor([1.0, 2.0]), torch.tensor([1.0, wrong])
    assert largest_difference(broken, fine) == math.inf
    assert relative_difference(broken, fine) == relative_difference(fine, broken) == math.inf
    assert relative_difference(broken, broken) == math.inf


def test_nothing_is_near_to_zeros_or_to_another_shape():
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == math.inf
    assert largest_difference(torch.zeros(2), torch.zeros(3)) == math.inf
