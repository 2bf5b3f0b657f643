"""The trunk: computing is the untouched forward, reusing adds a residual, nothing else changes."""

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

from budc.runtimes.sampling.span import SpanList  # noqa: E402
from budc.runtimes.sampling.trunk import Trunk, combine  # noqa: E402
from budc.schema.errors import CacheConflict, RefusedRun, UnsupportedModel  # noqa: E402

FAMILIES = ["wan", "flux"]
PAYLOADS: list[Any] = ["trunk-residual", "velocity", "trunk-output"]


def inputs(transformer: Any, batch: int = 1, seed: int = 0) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator)

    if type(transformer).__name__.startswith("Wan"):
        return {
            "hidden_states": noise(batch, 16, 2, 4, 4),
            "timestep": torch.full((batch,), 500),
            "encoder_hidden_states": noise(batch, 6, 16),
        }
    return {
        "hidden_states": noise(batch, 12, 16),
        "encoder_hidden_states": noise(batch, 5, 16),
        "pooled_projections": noise(batch, 8),
        "timestep": torch.full((batch,), 0.5),
        "img_ids": torch.zeros(12, 3),
        "txt_ids": torch.zeros(5, 3),
        "guidance": torch.full((batch,), 3.5),
    }


@pytest.fixture(params=FAMILIES)
def transformer(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param).transformer


def block_lists(transformer: Any) -> list[Any]:
    return [getattr(transformer, span.name) for span in Trunk(transformer).family.spans]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_compute_is_the_untouched_forward(transformer: Any, payload: Any) -> None:
    given = inputs(transformer, batch=2)
    expected = transformer(**given)[0]
    velocity, _ = Trunk(transformer, payload).compute(**given)
    assert torch.equal(velocity, expected)


def test_residual_is_what_the_blocks_add(wan: Any) -> None:
    model, given = wan.transformer, inputs(wan.transformer)
    seen: list[Any] = []
    first = model.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    last = model.blocks[-1].register_forward_hook(lambda _, args, out: seen.append(out))
    _, residual = Trunk(model).compute(**given)
    first.remove()
    last.remove()
    assert torch.equal(residual, seen[1] - seen[0])
    assert residual.shape == (1, 8, 32)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_reuse_of_its_own_payload_gives_the_output(transformer: Any, payload: Any) -> None:
    given, trunk = inputs(transformer, batch=2), Trunk(transformer, payload)
    velocity, residual = trunk.compute(**given)
    torch.testing.assert_close(trunk.reuse(residual, **given), velocity, rtol=1e-5, atol=1e-6)


def test_reuse_of_the_trunk_sees_new_latents_but_of_the_velocity_does_not(transformer: Any) -> None:
    given, other = inputs(transformer), inputs(transformer, seed=1)
    trunk = Trunk(transformer)
    velocity, residual = trunk.compute(**given)
    assert not torch.allclose(trunk.reuse(residual, **other), velocity)
    trunk = Trunk(transformer, "velocity")
    velocity, output = trunk.compute(**given)
    assert torch.equal(trunk.reuse(output, **other), velocity)


def test_reuse_runs_no_block(transformer: Any) -> None:
    given, trunk = inputs(transformer), Trunk(transformer)
    _, residual = trunk.compute(**given)
    for blocks in block_lists(transformer):
        for block in blocks:
            block.forward = None  # calling it would fail
    trunk.reuse(residual, **given)


def test_no_state_between_calls(transformer: Any) -> None:
    trunk = Trunk(transformer)
    with trunk.installed():
        a, b = inputs(transformer), inputs(transformer, seed=1)
        velocity_a, residual_a = trunk.compute(**a)
        velocity_b, residual_b = trunk.compute(**b)
        assert torch.equal(trunk.compute(**a)[0], velocity_a)
        torch.testing.assert_close(trunk.reuse(residual_a, **a), velocity_a, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(trunk.reuse(residual_b, **b), velocity_b, rtol=1e-5, atol=1e-6)
        assert vars(trunk.gate)["recorded"] is None


def test_an_exception_inside_leaves_nothing(transformer: Any) -> None:
    given, trunk = inputs(transformer), Trunk(transformer)
    expected = transformer(**given)[0]
    bad = given | {"encoder_hidden_states": torch.zeros(1, 6, 3)}
    with trunk.installed():
        with pytest.raises(RuntimeError):
            trunk.compute(**bad)
        assert trunk.gate.mode == "off"
        assert torch.equal(transformer(**given)[0], expected)
    assert all(type(blocks) is torch.nn.ModuleList for blocks in block_lists(transformer))


def test_installing_changes_nothing_that_others_see(transformer: Any) -> None:
    keys, blocks = list(transformer.state_dict()), [list(blocks) for blocks in block_lists(transformer)]
    before = [dict(vars(module)) for module in (transformer, *block_lists(transformer))]
    with Trunk(transformer).installed():
        assert list(transformer.state_dict()) == keys
        for installed, plain in zip(block_lists(transformer), blocks, strict=True):
            assert list(installed) == plain
            assert installed[0] == plain[0]
            assert len(installed) == len(plain)
            assert type(installed[0:1]) is torch.nn.ModuleList
    after = [dict(vars(module)) for module in (transformer, *block_lists(transformer))]
    assert after == before
    assert all(type(blocks) is torch.nn.ModuleList for blocks in block_lists(transformer))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_copies_and_pickles_are_plain(transformer: Any, payload: Any) -> None:
    given = inputs(transformer)
    expected = transformer(**given)[0]
    with Trunk(transformer, payload).installed():
        copied = copy.deepcopy(transformer)
        file = io.BytesIO()
        torch.save(transformer, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=False)
        again = pickle.loads(pickle.dumps(transformer))
    for other in (copied, loaded, again):
        assert torch.equal(other(**given)[0], expected)
        assert not any(isinstance(module, SpanList) for module in other.modules())
        velocity, residual = Trunk(other).compute(**given)
        torch.testing.assert_close(Trunk(other).reuse(residual, **given), velocity, rtol=1e-5, atol=1e-6)


def test_save_and_reload(transformer: Any, tmp_path: Path) -> None:
    given = inputs(transformer)
    with Trunk(transformer).installed():
        transformer.save_pretrained(tmp_path)
    loaded = type(transformer).from_pretrained(tmp_path)
    weights = transformer.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.state_dict().items())
    torch.testing.assert_close(loaded(**given)[0], transformer(**given)[0])


@pytest.mark.parametrize("when", ["before", "after"])
def test_adapters(transformer: Any, when: str) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    given, trunk = inputs(transformer), Trunk(transformer)
    torch.manual_seed(0)
    if when == "before":
        transformer.add_adapter(config)
    with trunk.installed():
        if when == "after":
            transformer.add_adapter(config)
        adapted, residual = trunk.compute(**given)
        torch.testing.assert_close(trunk.reuse(residual, **given), adapted, rtol=1e-5, atol=1e-6)
    assert torch.equal(transformer(**given)[0], adapted)
    transformer.disable_adapters()
    assert not torch.allclose(transformer(**given)[0], adapted)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_gradients_flow_and_checkpointing_gives_the_same(transformer: Any, payload: Any) -> None:
    trunk, grads = Trunk(transformer, payload), []
    for checkpointing in (False, True):
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        given = inputs(transformer)
        given["hidden_states"].requires_grad_()
        velocity, residual = trunk.compute(**given)
        later = trunk.reuse(residual * 0.5, **given)
        (velocity.sum() + later.square().sum()).backward()
        grads.append(given["hidden_states"].grad)
    assert grads[0].abs().sum() > 0
    assert torch.equal(grads[0], grads[1])


def shortened(transformer: Any) -> Any:
    """One block a list: compiling takes a second for each."""
    for span in Trunk(transformer).family.spans:
        setattr(transformer, span.name, getattr(transformer, span.name)[:1])
    return transformer


@pytest.mark.parametrize(
    ("family", "payload"),
    [
        ("wan", "trunk-residual"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("wan", "velocity"), ("flux", "trunk-residual"))
        ),
    ],
)
def test_two_full_graphs_and_no_more(family: str, payload: Any, request: pytest.FixtureRequest) -> None:
    transformer = shortened(request.getfixturevalue(family).transformer)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    trunk = Trunk(transformer, payload)
    with trunk.installed(), torch.no_grad():
        transformer.compile(backend=counter, fullgraph=True)
        residual: Any = None
        for seed in range(3):
            given = inputs(transformer, seed=seed)
            velocity, residual = trunk.compute(**given)
            reused = trunk.reuse(residual, **given)
            torch.testing.assert_close(reused, velocity, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 2


def test_the_functional_calls_compile_too(wan: Any) -> None:
    transformer = shortened(wan.transformer)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    trunk = Trunk(transformer)
    with trunk.installed(), torch.no_grad():
        compute = torch.compile(trunk.compute, backend=counter, fullgraph=True)
        reuse = torch.compile(trunk.reuse, backend=counter, fullgraph=True)
        for seed in range(2):
            given = inputs(transformer, seed=seed)
            velocity, residual = compute(**given)
            expected, same = trunk.compute(**given)
            torch.testing.assert_close((velocity, residual), (expected, same), rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(reuse(residual, **given), expected, rtol=1e-5, atol=1e-6)
    assert counter.frame_count == 2


class Computing(torch.nn.Module):
    """Both modes as modules, the way they are exported."""

    def __init__(self, trunk: Trunk) -> None:
        super().__init__()
        self.transformer, self.trunk = trunk.transformer, trunk

    def forward(self, **given: Any) -> Any:
        return self.trunk.compute(**given)


class Reusing(Computing):
    def forward(self, residual: Any, **given: Any) -> Any:
        return self.trunk.reuse(residual, **given)


def test_both_modes_export(transformer: Any) -> None:
    given, trunk = inputs(transformer), Trunk(transformer)
    with torch.no_grad(), trunk.installed():
        velocity, residual = trunk.compute(**given)
        computing = torch.export.export(Computing(trunk), (), given, strict=False)
        reusing = torch.export.export(Reusing(trunk), (residual,), given, strict=False)
    torch.testing.assert_close(computing.module()(**given), (velocity, residual))
    torch.testing.assert_close(reusing.module()(residual, **given), velocity, rtol=1e-5, atol=1e-6)
    assert len(reusing.graph.nodes) < len(computing.graph.nodes)
    assert trunk.gate.recorded is None


def test_running_twice_in_one_call_is_refused(transformer: Any) -> None:
    given, trunk = inputs(transformer), Trunk(transformer)
    with trunk.installed():
        trunk.set_compute()
        transformer(**given)
        with pytest.raises(RefusedRun, match="ran twice in one step"):
            transformer(**given)


def test_one_trunk_at_a_time(transformer: Any) -> None:
    with Trunk(transformer).installed():
        with pytest.raises(CacheConflict, match="already replaced by a SpanList"):
            Trunk(transformer).install()
        with Trunk(copy.deepcopy(transformer)).installed():
            pass


def test_unknown_class() -> None:
    with pytest.raises(
        UnsupportedModel,
        match="class Linear is not supported, expected one of FluxTransformer2DModel, Hunyuan",
    ):
        Trunk(torch.nn.Linear(2, 2))


def test_controlnet_is_refused(flux: Any) -> None:
    trunk = Trunk(flux.transformer)
    with pytest.raises(UnsupportedModel, match="controlnet_block_samples"):
        trunk.compute(**inputs(flux.transformer), controlnet_block_samples=[torch.zeros(1)])


def test_combine() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([10.0, 20.0])
    assert combine([1.0], [a]) is a
    assert torch.equal(combine([2.0, -0.5], [a, b]), torch.tensor([-3.0, -6.0]))
    weights = torch.tensor([2.0, -0.5], requires_grad=True)
    combine(list(weights), [a, b]).sum().backward()
    assert weights.grad is not None
    assert weights.grad.tolist() == [3.0, 30.0]


def test_combine_adds_halves_in_float32() -> None:
    torch.manual_seed(0)
    residuals = [torch.randn(4096).bfloat16() for _ in range(3)]
    coefficients = [3.1, -2.9, 0.8]
    exact = sum(c * r.double() for c, r in zip(coefficients, residuals, strict=True))
    result = combine(coefficients, residuals)
    assert result.dtype == torch.bfloat16
    # Half a unit in the last of bfloat16's 8 binary digits: rounded once, not after every term.
    assert bool(((result.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all())
