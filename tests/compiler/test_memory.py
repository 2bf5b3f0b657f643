"""A device with little memory: parts take turns, an expert or a block at a time, and what does not fit is said."""

import gc
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from elsewhere import ELSEWHERE, MEMORY, elsewhere, here, moved  # noqa: E402

from budc.compiler import loaded_target  # noqa: E402
from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.evaluation.pipeline_rollout import PipelineRollout  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.models.offload import Denoisers  # noqa: E402
from budc.compiler.models.pipelines import latents, text  # noqa: E402
from budc.compiler.planning.cost import forward_cost  # noqa: E402
from budc.compiler.planning.memory import phases  # noqa: E402
from budc.compiler.policy_source import make_request  # noqa: E402
from budc.compiler.rollouts.policies import full_policy  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.runtimes.sampling import quantized_loading  # noqa: E402
from budc.runtimes.sampling.loading import loading  # noqa: E402
from budc.schema.errors import DeviceMemory  # noqa: E402
from budc.schema.report_names import LATENT_MSE, PSNR  # noqa: E402

ENCODER, EXPERT, VAE = 1.3e6, 5.2e6, 4.6e6
"""Bytes that each part takes at most when it works, rounded up; those of an expert are mostly in its two blocks."""


@pytest.fixture(scope="session")
def heavy_folder(pair_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline of two experts, with a VAE as the nano models have it, and experts that are as large."""
    from diffusers import WanTransformer3DModel

    from budc.policies.nano.architectures.wan import build_vae

    folder = tmp_path_factory.mktemp("models") / "heavy"
    shutil.copytree(pair_folder, folder)
    build_vae(seed=0).eval().save_pretrained(folder / "vae")
    for seed, name in enumerate(("transformer", "transformer_2")):
        torch.manual_seed(seed)
        config = WanTransformer3DModel.load_config(folder / name)
        WanTransformer3DModel.from_config({**config, "ffn_dim": 8000}).save_pretrained(folder / name)
    return folder


@pytest.fixture
def flags(pair_profile: str, heavy_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A compile for two experts that computes elsewhere."""
    monkeypatch.setattr(loaded_target, "find_device", lambda _: ELSEWHERE)
    for module in (quantized_loading, latents, text):
        monkeypatch.setattr(module, "loading", loading_here)
    return {
        "model": pair_profile,
        "budget": "3",
        "search": "uniform",
        "weights": heavy_folder,
        "out": tmp_path / "policy.budc.json",
    }


@contextmanager
def loading_here(folder: Path) -> Iterator[None]:
    with here(), loading(folder):
        yield


def compiled(flags: Any, limit: float) -> Any:
    """Compile on a device with so many bytes of memory; return the names of the report's metrics."""
    with elsewhere(limit):
        (artifact,) = compile_artifacts(make_request({}, flags).resolve())
    return [metric.name for metric in artifact.document.quality.metrics]


def refused(flags: Any, limit: float, said: str) -> str:
    """Compile where that is too little memory; return what would help."""
    with pytest.raises(DeviceMemory, match=said) as caught:
        compiled(flags, limit)
    # Its frames hold what was on the device.
    caught.value.__traceback__ = None
    remedy = caught.value.remedy
    del caught
    gc.collect()
    assert MEMORY.used == 0
    return remedy


@pytest.mark.slow
def test_parts_that_fit_one_by_one_but_not_together(flags: Any) -> None:
    limit = max(ENCODER, EXPERT, VAE)
    assert compiled(flags, limit) == [LATENT_MSE, PSNR]
    assert 0.9 * limit < MEMORY.peak <= limit


@pytest.mark.slow
def test_a_block_at_a_time_fits_where_an_expert_does_not(flags: Any) -> None:
    assert "--offload group" in refused(
        flags | {"no_frames": True}, EXPERT * 0.7, "the denoiser does not fit"
    )
    assert compiled(flags | {"no_frames": True, "offload": "group"}, EXPERT * 0.7) == [LATENT_MSE]
    assert MEMORY.peak > EXPERT * 0.5


@pytest.mark.slow
def test_frames_that_do_not_fit_lose_nothing(flags: Any, capsys: Any, monkeypatch: Any) -> None:
    flags |= {"offload": "group"}
    assert "--no-frames" in refused(flags, VAE * 0.9, "decoding a sample does not fit")
    assert "the VAE goes on in tiles" in capsys.readouterr().err
    from budc.compiler.models.denoiser import ModelDenoiser

    monkeypatch.delattr(ModelDenoiser, "compute")
    assert compiled(flags | {"no_frames": True}, VAE * 0.9) == [LATENT_MSE]


def test_one_denoiser_is_on_the_device_at_a_time() -> None:
    loads: list[int] = []

    def load(width: int) -> Any:
        loads.append(width)
        return torch.nn.Linear(width, 1, bias=False)

    with elsewhere(limit=450):
        denoisers = Denoisers([partial(load, 100), partial(load, 50), partial(load, 200)], ELSEWHERE)
        assert not loads
        for index, used in ((0, 400), (1, 200), (0, 400)):
            assert denoisers.onloaded(index).weight.device == ELSEWHERE
            assert MEMORY.used == used
        denoisers.offload()
        assert MEMORY.used == 0
        with pytest.raises(DeviceMemory, match="the denoiser does not fit"):
            denoisers.onloaded(2)
    assert loads == [100, 50, 200]


def test_planned_memory_is_what_a_rollout_takes(pair_profile: str, heavy_folder: Path) -> None:
    # Real networks are heavy too: weights and activations are what counts. Where latents are as large, the solver's own
    # tensors come on top.
    profile = load_profile(pair_profile)
    model = load_model(profile, heavy_folder, torch.device("cpu"))
    cost = forward_cost(profile, heavy_folder)
    planned = {phase.name: phase for phase in phases(profile, cost, align=False)}
    conditions, policy = encode_prompts(model, ["a red box"], [0]), full_policy(3, profile.branches)
    with elsewhere():
        PipelineRollout(moved(model), batch=1).run(policy, model.sampler(3), conditions)
        assert MEMORY.peak == pytest.approx(planned["reference run"].whole, rel=0.1)
