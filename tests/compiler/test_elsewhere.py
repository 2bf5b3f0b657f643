"""On a device that is not the CPU, everything that meets lies there: searches, alignment, rollouts."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from elsewhere import ELSEWHERE, Remote, StrangerError, elsewhere, moved, rollouts  # noqa: E402

from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.denoiser import model_denoiser  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.rollouts.schedule import NoiseSchedule  # noqa: E402
from budc.compiler.selection.calibration import Calibration  # noqa: E402
from budc.compiler.selection.finder import Finder  # noqa: E402
from budc.compiler.selection.task import SearchResult, Task  # noqa: E402
from budc.compiler.storage.journal import Journal  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402

CPU = torch.device("cpu")


def test_tensors_elsewhere_do_not_meet_those_here() -> None:
    with elsewhere() as device:
        here, there = torch.ones(3), torch.arange(3.0, device=device)
        assert isinstance(there, Remote)
        assert there.device == ELSEWHERE
        assert (there * 2 + here.to(device)).tolist() == [1.0, 3.0, 5.0]
        assert (there.cpu() + here).tolist() == [1.0, 2.0, 3.0]
        with pytest.raises(StrangerError, match="aten::add"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


def test_gradients_come_back_from_elsewhere() -> None:
    weight = torch.ones(3, requires_grad=True)
    with elsewhere() as device:
        (weight.to(device) * torch.arange(3.0, device=device)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.tolist() == [0.0, 1.0, 2.0]


@pytest.fixture(params=["flux", *(pytest.param(name, marks=pytest.mark.slow) for name in ("wan", "experts"))])
def model(request: pytest.FixtureRequest) -> Any:
    if request.param == "wan":
        return load_model(load_profile("wan2.1-nano"), request.getfixturevalue("wan_folder"), CPU)
    name = {"flux": "flux", "experts": "pair"}[request.param]
    profile = load_profile(request.getfixturevalue(f"{name}_profile"))
    return load_model(profile, request.getfixturevalue(f"{name}_folder"), CPU)


def searched(model: Any, conditions: Any, journal: Any) -> SearchResult:
    sampler = model.sampler(6)
    task = Task(
        denoiser=model_denoiser(model),
        schedule=NoiseSchedule.of(model.scheduler, sampler.sigmas, sampler.timesteps),
        conditions=conditions,
        nfe=3,
        annealing=model.profile.search,
        search="joint",
        align=True,
        batch=4,
    )
    with Journal(journal, "elsewhere") as opened:
        return Finder(Calibration(task, opened)).find(task)


@pytest.mark.usefixtures("short_search")
@pytest.mark.slow
def test_a_search_and_its_alignment(model: Any, tmp_path: Any) -> None:
    conditions = encode_prompts(
        model, ["a red box", "a blue ring", "two small stars", "a tall house"], range(4)
    )
    here = searched(model, conditions, tmp_path / "here")
    with elsewhere():
        there = searched(moved(model), conditions, tmp_path / "there")
    assert there.forwards == here.forwards
    assert there.loss == pytest.approx(here.loss, abs=0.01)


def test_rollouts(model: Any) -> None:
    here, there = rollouts(model, ["a red box", "a blue ring"])
    torch.testing.assert_close(there, here, rtol=1e-3, atol=1e-4)
