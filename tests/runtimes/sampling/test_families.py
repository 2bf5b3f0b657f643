"""Every family's real architecture, without its weights: on the meta device, and scaled down with random ones."""

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
from torch._dynamo.testing import CompileCounterWithBackend  # noqa: E402

from budc.compiler.planning.dummy_inputs import InputSize, dummy_inputs  # noqa: E402
from budc.policies.profile import load_profile, profile_names  # noqa: E402
from budc.runtimes.sampling.families import FAMILIES  # noqa: E402
from budc.runtimes.sampling.span import SpanList  # noqa: E402
from budc.runtimes.sampling.trunk import Trunk  # noqa: E402

PUBLISHED = [name for name in profile_names() if load_profile(name).architecture]
REAL = list({repr(load_profile(name).architecture): name for name in PUBLISHED}.values())
"""One of each architecture."""
SMALL: dict[str, dict[str, Any]] = {
    "FluxTransformer2DModel": {
        "num_layers": 2, "num_single_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16,
        "joint_attention_dim": 16, "pooled_projection_dim": 8, "axes_dims_rope": (4, 6, 6),
    },
    "HunyuanVideoTransformer3DModel": {
        "num_layers": 2, "num_single_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 2,
        "attention_head_dim": 16, "text_embed_dim": 16, "pooled_projection_dim": 8, "rope_axes_dim": (4, 6, 6),
    },
    "QwenImageTransformer2DModel": {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "joint_attention_dim": 16,
        "axes_dims_rope": (4, 6, 6),
    },
    "WanTransformer3DModel": {
        "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 32, "text_dim": 16,
        "freq_dim": 16, "rope_max_seq_len": 32,
    },
    "ZImageTransformer2DModel": {
        "n_layers": 2, "n_refiner_layers": 1, "dim": 32, "n_heads": 2, "n_kv_heads": 2, "cap_feat_dim": 16,
        "axes_dims": [4, 6, 6], "axes_lens": [128, 64, 64],
    },
}  # fmt: skip
WITH_IMAGE = {"image_dim": 8, "added_kv_proj_dim": 32}
EXTENT = InputSize(frames=5, height=32, width=48, text_tokens=5, batch=2)


def architecture(name: str, denoiser: str = "transformer") -> tuple[str, dict[str, Any]]:
    profile = load_profile(name)
    return profile.denoisers[denoiser], dict(profile.architecture[denoiser])


def small(name: str) -> tuple[str, dict[str, Any]]:
    """Return the class and the settings of a profile's first denoiser, scaled down."""
    class_name, settings = architecture(name)
    image = {key: value for key, value in WITH_IMAGE.items() if key in settings}
    return class_name, settings | SMALL[class_name] | image


def on_meta(name: str, denoiser: str) -> Any:
    class_name, settings = architecture(name, denoiser)
    with torch.device("meta"):
        return getattr(diffusers, class_name).from_config(settings)


@pytest.fixture(params=REAL, scope="module")
def built(request: pytest.FixtureRequest) -> Any:
    class_name, settings = small(request.param)
    torch.manual_seed(0)
    model = getattr(diffusers, class_name).from_config(settings).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            # Pad tokens and some norms are made without a value.
            torch.nn.init.normal_(parameter, 1.0, 0.1)
        else:
            torch.nn.init.normal_(parameter, 0.0, 0.1)
    return model.requires_grad_(False)


@pytest.fixture
def transformer(built: Any) -> Any:
    return copy.deepcopy(built)


def inputs(transformer: Any, seed: int = 0, batch: int = 2) -> dict[str, Any]:
    torch.manual_seed(seed)
    return dummy_inputs(type(transformer).__name__, transformer.config, EXTENT._replace(batch=batch))


def whole(velocity: Any) -> Any:
    # Z-Image returns one tensor a sample.
    return torch.stack(velocity) if isinstance(velocity, list) else velocity


def close(left: Any, right: Any) -> None:
    torch.testing.assert_close(whole(left), whole(right), rtol=1e-4, atol=1e-5)


def block_lists(transformer: Any) -> list[Any]:
    return [getattr(transformer, span.name) for span in FAMILIES[type(transformer).__name__].spans]


@pytest.mark.parametrize(
    ("name", "denoiser"), [(name, part) for name in PUBLISHED for part in load_profile(name).architecture]
)
def test_the_real_architecture_has_the_published_size(name: str, denoiser: str) -> None:
    model = on_meta(name, denoiser)
    size = sum(parameter.numel() for parameter in model.parameters())
    assert size / 1e9 == pytest.approx(load_profile(name).parameters, rel=0.01)


@pytest.mark.parametrize("name", REAL)
def test_the_real_architecture_takes_the_trunk(name: str) -> None:
    model = on_meta(name, "transformer")
    keys = list(model.state_dict())
    counted = sum(len(getattr(model, span.name)) for span in FAMILIES[type(model).__name__].spans)
    with Trunk(model).installed():
        assert list(model.state_dict()) == keys
        lists = [module for module in model.modules() if isinstance(module, SpanList)]
        blocks = sum(len(blocks) for blocks in lists if not blocks._budc_span.leads)
    assert blocks == counted >= 30
    assert not any(isinstance(module, SpanList) for module in model.modules())


def test_every_family_is_some_profile_s() -> None:
    assert {architecture(name)[0] for name in REAL} == set(FAMILIES)


@pytest.mark.parametrize("payload", ["trunk-residual", "velocity"])
def test_computing_is_the_untouched_forward_and_reuse_gives_it_back(transformer: Any, payload: Any) -> None:
    given = inputs(transformer)
    expected = whole(transformer(**given, return_dict=False)[0])
    trunk = Trunk(transformer, payload)
    velocity, cached = trunk.compute(**given)
    assert torch.equal(whole(velocity), expected)
    close(trunk.reuse(cached, **given), expected)
    # Without what the blocks add, the output is another one: the reuse above is not the network's own work.
    assert not torch.allclose(whole(trunk.reuse(torch.zeros_like(cached), **given)), expected, atol=1e-3)


def test_reuse_runs_no_block(transformer: Any) -> None:
    given, trunk = inputs(transformer), Trunk(transformer)
    velocity, residual = trunk.compute(**given)
    for blocks in block_lists(transformer):
        for block in blocks:
            block.forward = None  # calling it would fail
    close(trunk.reuse(residual, **given), whole(velocity))


def test_installed_and_off_changes_nothing(transformer: Any) -> None:
    given, keys = inputs(transformer), list(transformer.state_dict())
    expected = whole(transformer(**given, return_dict=False)[0])
    with Trunk(transformer).installed():
        assert list(transformer.state_dict()) == keys
        assert torch.equal(whole(transformer(**given, return_dict=False)[0]), expected)
    assert all(type(blocks) is torch.nn.ModuleList for blocks in block_lists(transformer))


def test_copies_and_saved_models_are_plain(transformer: Any, tmp_path: Path) -> None:
    given = inputs(transformer)
    expected = whole(transformer(**given, return_dict=False)[0])
    with Trunk(transformer).installed():
        copied = copy.deepcopy(transformer)
        transformer.save_pretrained(tmp_path)
    # Attention takes another kernel where gradients are asked for.
    loaded = type(transformer).from_pretrained(tmp_path).requires_grad_(False)
    for other in (copied, loaded):
        assert not any(isinstance(module, SpanList) for module in other.modules())
        assert torch.equal(whole(other(**given, return_dict=False)[0]), expected)


@pytest.mark.parametrize("when", ["before", "after"])
def test_adapters(transformer: Any, when: str) -> None:
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    given, trunk = inputs(transformer), Trunk(transformer)
    plain = whole(transformer(**given, return_dict=False)[0])
    if when == "before":
        transformer.add_adapter(config)
    with trunk.installed():
        if when == "after":
            transformer.add_adapter(config)
        adapted, residual = trunk.compute(**given)
        close(trunk.reuse(residual, **given), adapted)
    assert torch.equal(whole(transformer(**given, return_dict=False)[0]), whole(adapted))
    assert not torch.allclose(whole(adapted), plain)


def test_gradient_checkpointing_gives_the_same_gradient(transformer: Any) -> None:
    trunk, grads = Trunk(transformer), []
    for checkpointing in (False, True):
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        given = inputs(transformer)
        scale = torch.ones((), requires_grad=True)
        name = "x" if "x" in given else "hidden_states"
        given[name] = [x * scale for x in given[name]] if name == "x" else given[name] * scale
        velocity, residual = trunk.compute(**given)
        later = whole(trunk.reuse(residual * 0.5, **given))
        (whole(velocity).sum() + later.square().sum()).backward()
        grads.append(scale.grad)
    assert grads[0].abs() > 0
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize(
    "name",
    [
        "wan2.1",
        pytest.param("wan2.1-i2v-14b-480p", marks=pytest.mark.slow),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("flux.1-dev", "hunyuan-video", "qwen-image", "z-image")
        ),
    ],
)
def test_both_modes_are_one_full_graph_each(name: str) -> None:
    class_name, settings = small(name)
    torch.manual_seed(0)
    transformer = getattr(diffusers, class_name).from_config(settings).eval()
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("eager")
    trunk = Trunk(transformer)
    with trunk.installed(), torch.no_grad():
        transformer(**inputs(transformer))  # Z-Image makes its table of rotations in the first forward
        transformer.compile(backend=counter, fullgraph=True)
        for seed in range(2):
            given = inputs(transformer, seed=seed)
            velocity, residual = trunk.compute(**given)
            close(trunk.reuse(residual, **given), velocity)
    assert counter.frame_count == 2


def test_group_offload_of_blocks_keeps_the_trunk(transformer: Any) -> None:
    given, trunk = inputs(transformer), Trunk(transformer)
    expected = whole(transformer(**given, return_dict=False)[0])
    with trunk.installed():
        transformer.enable_group_offload(
            onload_device=torch.device("cpu"), offload_type="block_level", num_blocks_per_group=1
        )
        velocity, residual = trunk.compute(**given)
        assert torch.equal(whole(velocity), expected)
        close(trunk.reuse(residual, **given), expected)
