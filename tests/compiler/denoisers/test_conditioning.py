"""Conditioning: samples are selected in the same way, whether a branch has one tensor or several."""

import pytest

torch = pytest.importorskip("torch")

import budc  # noqa: E402
from budc.compiler.denoisers.conditioning import Conditioning, named_tensors  # noqa: E402
from budc.schema.errors import UsageError  # noqa: E402


@pytest.fixture
def conditions() -> Conditioning:
    text = torch.arange(12.0).view(4, 3)
    return Conditioning({"cond": {"text": text, "scale": text[:, 0]}, "uncond": -text}, 10 * text)


def test_rows_of_all_tensors(conditions: Conditioning) -> None:
    chosen = conditions.rows([2, 0])
    assert len(chosen) == 2
    assert named_tensors(chosen.embeddings["cond"])["scale"].tolist() == [6.0, 0.0]
    assert named_tensors(chosen.embeddings["uncond"])[""].tolist() == [[-6, -7, -8], [0, -1, -2]]
    assert chosen.noise.tolist() == [[60, 70, 80], [0, 10, 20]]


def test_a_part_is_its_rows(conditions: Conditioning) -> None:
    part, rows = conditions.part(1, 3), conditions.rows([1, 2])
    assert torch.equal(part.noise, rows.noise)
    for name, condition in part.embeddings.items():
        for key, value in named_tensors(condition).items():
            assert torch.equal(value, named_tensors(rows.embeddings[name])[key])


def _pair() -> tuple[object, object]:
    def compute(latents: torch.Tensor, timestep: torch.Tensor, condition: dict[str, torch.Tensor]) -> object:
        residual = latents * (timestep[:, None] / 1000) * condition["gain"][:, None]
        return reuse(residual, latents, timestep, condition), residual

    def reuse(residual: torch.Tensor, latents: torch.Tensor, timestep: object, condition: object) -> object:
        return (latents + residual) * condition["scale"][:, None]

    return compute, reuse


def _compile(gain: torch.Tensor, scale: torch.Tensor) -> budc.Compiled:
    from diffusers import FlowMatchEulerDiscreteScheduler

    noise = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    return budc.compile_policy(
        _pair(),
        conditioning={"cond": {"gain": gain, "scale": scale}},
        noise=noise,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        sigmas=[1 - k / 6 for k in range(7)],
        budget=3,
        search="uniform",
    )


def test_a_network_of_several_conditions_compiles() -> None:
    narrow, wide = (_compile(torch.linspace(0.5, top, 4), torch.ones(4)) for top in (1.0, 2.0))
    assert sum(narrow.policy.branches[0].mask) == 3
    assert narrow.outcome.loss != wide.outcome.loss


def test_a_tensor_of_another_number_of_samples_is_named() -> None:
    with pytest.raises(UsageError, match=r"conditioning\['cond'\]\['scale'\] has 3 samples, noise has 4"):
        _compile(torch.ones(4), torch.ones(3))
