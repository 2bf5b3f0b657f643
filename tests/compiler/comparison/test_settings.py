"""Settings of an evaluation: what the journal tells apart, and which methods cannot run."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.comparison.changes import Change  # noqa: E402
from budc.compiler.comparison.fitted import Fitted, plain  # noqa: E402
from budc.compiler.comparison.ipndm2m import IPNDM2MScheduler  # noqa: E402
from budc.compiler.comparison.rivals import CannotRun  # noqa: E402
from budc.compiler.rollouts.linear_form import linear_form  # noqa: E402
from budc.compiler.rollouts.policies import shared_policy  # noqa: E402
from budc.policies.adapter_files import AdapterFile  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402
from budc.schema.mask import StepMask  # noqa: E402
from budc.schema.predictor import Predictor  # noqa: E402


def test_an_adapter_that_was_replaced_is_another_setting(tmp_path):
    path = tmp_path / "style.safetensors"
    change = Change("lora=style", load_profile("flux-nano"), adapters=(AdapterFile(path, 1.0, "style"),))
    path.write_bytes(b"first")
    first = change.key
    path.write_bytes(b"other")
    assert change.key != first
    assert first.startswith("lora=style ")


def forecast(steps, computed):
    """A policy that reuses along the line through the two newest computed steps, where there are two."""
    mask = StepMask.from_compute_steps(steps, computed)
    rows = [
        () if step in computed else (2.0, -1.0)[: sum(k < step for k in computed)] for step in range(steps)
    ]
    return shared_policy(mask, Predictor.of(rows, mask), ("cond",))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (plain(6, (0, 3), ("cond",)), ""),
        (plain(6, (0, 2), ("cond",)), "step 3 combines 1 computed steps, but its denoiser has 0 before it"),
        (forecast(6, (0, 1, 3, 4)), ""),
        (forecast(6, (0, 1, 3)), "step 4 combines 2 computed steps, but its denoiser has 1 before it"),
    ],
)
def test_what_reuses_tensors_of_another_denoiser_cannot_run(policy, said):
    fitted, sampler = Fitted(policy=policy), SimpleNamespace(first_steps=(3,))
    if not said:
        fitted.check_experts(sampler)
        return
    with pytest.raises(CannotRun, match=said):
        fitted.check_experts(sampler)


def test_ipndm2m_is_adams_bashforth_on_uneven_steps():
    # v = 2 + 3 sigma: exact from the second step on, as x is quadratic in sigma.
    sigmas = [1.0, 0.7, 0.5, 0.1]
    form = linear_form(IPNDM2MScheduler(), sigmas, [1000 * sigma for sigma in sigmas[:-1]])
    velocities = [torch.tensor([2 + 3 * sigma], dtype=torch.float64) for sigma in sigmas[:-1]]
    noise = torch.tensor([2 * 1.0 + 1.5 * 1.0], dtype=torch.float64)
    first, last = form.latents(1, noise, velocities), form.latents(3, noise, velocities)
    gained = (2 * 0.1 + 1.5 * 0.01) - (2 * 0.7 + 1.5 * 0.49)
    assert float(last - first) == pytest.approx(gained, abs=1e-5)
