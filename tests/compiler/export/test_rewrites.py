"""Rewrites of traced programs: complex products as real ones, slices of concatenations, masks of one row."""

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.export.attention_masks import expand_masks  # noqa: E402
from budc.compiler.export.complex_products import real_products  # noqa: E402
from budc.compiler.export.slices import cut_concatenations  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")


def rotated(x):
    factors = torch.view_as_complex(x[:, :1].reshape(x.shape[0], 1, 3, 2) * 0.5)
    turned = torch.view_as_complex(x.reshape(x.shape[0], 6, 3, 2)).unsqueeze(-2) * factors.unsqueeze(2)
    return torch.view_as_real(turned).flatten(2)


def magnitude(x):
    return torch.view_as_complex(x.reshape(x.shape[0], 6, 3, 2)).abs()


def first_part(x):
    return torch.cat([x * 2, torch.sin(x)], 1)[:, :6] + 1


def last_part(x):
    return torch.cat([x * 2, torch.sin(x)], 1)[:, 6:12]


def across(x):
    return torch.cat([x * 2, torch.sin(x)], 1)[:, 3:9]


def other_axis(x):
    return torch.cat([x * 2, torch.sin(x)], 2)[:, :6]


def attention(x):
    mask = (x.sum(-1) > 0)[:, None, None]
    return torch.nn.functional.scaled_dot_product_attention(
        x[:, None], x[:, None], x[:, None], attn_mask=mask
    )


def full_mask(x):
    mask = (x.sum(-1) > 0)[:, None, None].expand(-1, 1, 6, 6)
    return torch.nn.functional.scaled_dot_product_attention(
        x[:, None], x[:, None], x[:, None], attn_mask=mask
    )


def traced(function):
    class Wrapped(torch.nn.Module):
        def forward(self, x):
            return function(x)

    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(Wrapped(), (torch.randn(2, 6, 6),), dynamic_shapes=({0: batch},))


def targets(program):
    return [str(node.target) for node in program.graph.nodes if node.op == "call_function"]


@pytest.mark.parametrize(
    ("rewrite", "function", "rewritten", "gone"),
    [
        (real_products, rotated, 6, "complex"),
        (cut_concatenations, first_part, 1, "sin"),
        (cut_concatenations, last_part, 1, "cat"),
        (cut_concatenations, across, 0, None),
        (cut_concatenations, other_axis, 0, None),
        (expand_masks, attention, 1, None),
        (expand_masks, full_mask, 0, None),
    ],
)
def test_values_stay(rewrite, function, rewritten, gone):
    program = traced(function)
    if gone is not None:
        assert any(gone in target for target in targets(program))
    assert rewrite(program) == rewritten
    program.graph_module.graph.lint()
    for size in (1, 2, 5):
        # Every row of a mask lets something through.
        x = torch.randn(size, 6, 6).abs()
        torch.testing.assert_close(program.module()(x), function(x))
    if gone is not None:
        assert not any(gone in target for target in targets(program))


def test_other_complex_operations_stay_for_the_exporter_to_refuse():
    program = traced(magnitude)
    real_products(program)
    x = torch.randn(3, 6, 6)
    torch.testing.assert_close(program.module()(x), magnitude(x))
