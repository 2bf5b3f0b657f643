import pytest

torch = pytest.importorskip("torch")

from budc.compiler.export.strided import stack_strided_writes  # noqa: E402


def interleave(x):
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 1::2]
    out[..., 1::2] = -x[..., 0::2]
    return out.sum(-1) + out[..., 0]


def middle(x):
    out = torch.empty_like(x)
    for place in range(3):
        out[:, place::3] = x[:, place::3] * place
    return out


def cast(x):
    out = torch.empty_like(x, dtype=torch.float16)
    out[..., 0::2] = x[..., 0::2] * 1.0001
    out[..., 1::2] = x[..., 1::2]
    return out


def half_written(x):
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 0::2]
    out[..., 1::2] = 0.0
    return out


def out_of_order(x):
    out = torch.empty_like(x)
    out[..., 1::2] = x[..., 1::2]
    out[..., 0::2] = x[..., 0::2]
    return out


def read_between(x):
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 0::2]
    seen = out[..., 0].sum()
    out[..., 1::2] = x[..., 1::2]
    return out + seen


def cut(x):
    out = torch.empty_like(x)
    out[..., 0:4:2] = x[..., 0:4:2]
    out[..., 1:4:2] = x[..., 1:4:2]
    return out[..., :4]


def twice(x):
    return interleave(x) + interleave(x + 1)


def traced(function, x):
    class Wrapped(torch.nn.Module):
        def forward(self, x):
            return function(x)

    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(Wrapped(), (x,), dynamic_shapes=({0: batch},))


pytestmark = pytest.mark.filterwarnings("ignore:.*treespec:FutureWarning")


@pytest.mark.parametrize(
    ("function", "rewritten"),
    [(interleave, 1), (middle, 1), (cast, 1), (twice, 2), (out_of_order, 0), (read_between, 0), (cut, 0)],
)
def test_values_stay_and_writes_go(function, rewritten):
    program = traced(function, torch.randn(2, 6, 6))
    assert stack_strided_writes(program) == rewritten
    program.graph_module.graph.lint()
    for size in (1, 2, 5):
        x = torch.randn(size, 6, 6)
        result = program.module()(x)
        assert result.dtype == function(x).dtype
        assert torch.equal(result, function(x))
    writes = [node for node in program.graph.nodes if "copy_" in str(node.target)]
    assert bool(writes) == (rewritten == 0)


def test_a_write_of_another_shape_is_left_alone():
    program = traced(half_written, torch.randn(2, 6, 6))
    assert stack_strided_writes(program) == 0
    x = torch.randn(3, 6, 6)
    assert torch.equal(program.module()(x), half_written(x))


def test_a_length_that_the_stride_does_not_divide_is_left_alone():
    program = traced(interleave_odd, torch.randn(2, 3, 5))
    assert stack_strided_writes(program) == 0
    x = torch.randn(3, 3, 5)
    assert torch.equal(program.module()(x), x)


def interleave_odd(x):
    out = torch.empty_like(x)
    out[..., 0::2] = x[..., 0::2]
    out[..., 1::2] = x[..., 1::2]
    return out
