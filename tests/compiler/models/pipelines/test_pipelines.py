"""Adapters: which pipeline classes have one, and whether their guidance is what they say."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from budc.compiler.models.pipelines import adapter_for  # noqa: E402
from budc.policies.profile import load_profile, profile_names  # noqa: E402
from budc.schema.errors import UnsupportedModel  # noqa: E402


def test_every_profile_s_pipeline_has_an_adapter() -> None:
    classes = {load_profile(name).pipeline_class for name in profile_names()}
    assert len({type(adapter_for(name)) for name in classes}) == len(classes) >= 5


def test_an_unknown_pipeline_is_refused() -> None:
    with pytest.raises(
        UnsupportedModel, match="cannot compile for LTXPipeline, only for FluxPipeline, Hunyuan"
    ):
        adapter_for("LTXPipeline")


@pytest.mark.parametrize(
    "name", ["flux.1-dev", "hunyuan-video", "qwen-image", "wan2.1", "z-image", "z-image-turbo"]
)
def test_linear_guidance_is_a_weighted_sum(name: str) -> None:
    profile = load_profile(name)
    adapter = adapter_for(profile.pipeline_class)
    generator = torch.Generator().manual_seed(0)
    velocities = {b: torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) for b in profile.branches}

    def guided(of: dict) -> torch.Tensor:
        return adapter.guide(of, profile.guidance)

    ones = {b: guided({c: torch.tensor(float(b == c)) for c in velocities}) for b in velocities}
    total = sum(float(ones[b]) * velocities[b] for b in velocities)
    assert torch.allclose(guided(velocities), total) is adapter.linear
