"""Settings of an evaluation: what the journal tells apart, and which methods cannot run."""

from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.comparison.changes import Change  # noqa: E402
from budc.compiler.comparison.fitted import Fitted, plain  # noqa: E402
from budc.compiler.comparison.ipndm2m import IPNDM2MScheduler  # noqa: E402
from budc.compiler.comparison.rivals import CannotRun  # noqa: E402
from budc.compiler.rollouts.linear_form import linear_form  # noqa: E402
from budc.policies.adapter_files import AdapterFile  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402


def test_an_adapter_that_was_replaced_is_another_setting(tmp_path):
    path = tmp_path / "style.safetensors"
    change = Change("lora=style", load_profile("flux-nano"), adapters=(AdapterFile(path, 1.0, "style"),))
    path.write_bytes(b"first")
    first = change.key
    path.write_bytes(b"other")
    assert change.key != first
    assert first.startswith("lora=style ")


@pytest.mark.parametrize(("computed", "runs"), [((0, 3), True), ((0, 2), False)])
def test_a_mask_that_reuses_where_another_denoiser_takes_over_cannot_run(computed, runs):
    fitted = Fitted(policy=plain(6, computed, ("cond",)))
    sampler = SimpleNamespace(experts=[SimpleNamespace(first_step=3, denoiser="transformer_2")])
    if runs:
        fitted.check_experts(sampler)
        return
    with pytest.raises(CannotRun, match="reuses step 3, where transformer_2 takes over"):
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
