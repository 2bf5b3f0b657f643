"""The time that is left of all passes holds within a factor of 1.5 from a tenth of the way on, on a clock of forwards."""

import pytest

torch = pytest.importorskip("torch")

from forward_clock import ForwardClock  # noqa: E402

from budc.compiler.compile import compile_artifacts  # noqa: E402
from budc.compiler.policy_source import make_request  # noqa: E402
from budc.compiler.transfer import transfer  # noqa: E402
from budc.compiler.transfer_request import TransferRequest  # noqa: E402
from budc.schema.artifact import read  # noqa: E402

FACTOR = 1.5
SIZE = ("height", "width", "frames")

COMPILES = {
    "fast": {},
    "balanced": {"effort": "balanced"},
    "thorough": {"effort": "thorough", "no_frames": False},
    "align": {"align": True},
    "dp": {"search": "dp"},
    "uniform": {"search": "uniform"},
    "sweep": {"budget": None, "sweep": "2,3,4"},
    "shapes": {"shape": ("32x48x5", "48x64x5"), **dict.fromkeys(SIZE)},
}


def _plan(eight_prompts, tmp_path, flags):
    asked = eight_prompts | {"budget": "4", "no_frames": True, "steps": 12, "out": tmp_path / "p.budc.json"}
    asked |= {"out": tmp_path} if "sweep" in flags else {}
    asked |= flags
    return make_request({}, {key: value for key, value in asked.items() if value is not None}).resolve()


def _clocked(run):
    clock = ForwardClock()
    with clock.running():
        run()
    return clock


# One of them in every test run, the others where there is time.
@pytest.mark.parametrize(
    "name", [name if name == "fast" else pytest.param(name, marks=pytest.mark.slow) for name in COMPILES]
)
def test_it_holds_from_a_tenth_on(eight_prompts, tmp_path, name):
    plan = _plan(eight_prompts, tmp_path, COMPILES[name])
    assert _clocked(lambda: compile_artifacts(plan)).misses(FACTOR) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "settles"),
    [({"quality": "latent-mse<=0.001"}, "quality of"), ({"within": "1s"}, "calibration full")],
    ids=["quality", "within"],
)
def test_where_the_budget_is_settled_it_holds_from_then_on(eight_prompts, tmp_path, flags, settles):
    """From the first budget on that was tried for a quality; for a time from the reference run on."""
    plan = _plan(eight_prompts, tmp_path, {"budget": None, **flags})
    clock = _clocked(lambda: compile_artifacts(plan))
    settled = next(said.now for said in clock.said if said.label.startswith(settles))
    assert clock.misses(FACTOR, first=max(0.1, settled / clock.now)) == []
    assert all(said.left is not None for said in clock.said)
    if "quality" in flags:
        assert len({said.label for said in clock.said if said.label.startswith(settles)}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("flags", [{}, {"nearby": True}, {"native": True}, {"frozen": True}], ids=str)
def test_of_a_transfer_it_holds_too(eight_prompts, tmp_path, flags):
    plan = _plan(eight_prompts, tmp_path, {"search": "uniform"})
    compile_artifacts(plan)
    given = {name: eight_prompts[name] for name in (*SIZE, "weights", "calibration", "held_out", "effort")}
    request = TransferRequest(
        source=read(plan.policies[0].path),
        to="wan2.1-nano",
        differing=True,
        out=tmp_path / "t.budc.json",
        **given,
        **flags,
    )
    assert _clocked(lambda: transfer(request.resolve())).misses(FACTOR) == []
