"""DPCache as SGLang has it: forecasts by hand, a plan that no other beats, and its policy on a model."""

import itertools

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.comparison.dpcache import dpcache, forecast_errors, plan  # noqa: E402
from budc.compiler.comparison.rivals import CannotRun  # noqa: E402
from budc.compiler.comparison.setting import ModelSetting, Samples  # noqa: E402
from budc.compiler.denoisers.batched import BatchedDenoiser  # noqa: E402
from budc.compiler.rollouts.reference_run import reference_run  # noqa: E402


def test_a_forecast_is_exact_on_a_line_and_off_by_the_bend():
    outputs = torch.tensor([0.0, 1.0, 2.0, 3.0, 6.0]).view(5, 1, 1)
    errors = forecast_errors(outputs)
    assert errors[0, 1].tolist() == [0, 0, 0, 0, 2]
    assert errors[0, 3].tolist() == errors[2, 3].tolist() == [0, 0, 0, 0, 2]
    # Only what comes after both is forecast.
    assert errors[3, 1].abs().sum() == errors[2, 2].abs().sum() == 0


def test_the_plan_is_the_best_of_all():
    errors = torch.rand(8, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    # As forecasts are: of later steps alone.
    errors = torch.stack([torch.triu(page, 1) for page in errors])

    def cost(path):
        triples = zip(path, path[1:], (*path[2:], 8), strict=False)
        return sum(float(errors[i, j, t]) for i, j, k in triples for t in range(j + 1, k))

    for nfe in (3, 4, 5, 8):
        others = [(0, 1, 2, *rest) for rest in itertools.combinations(range(3, 8), nfe - 3)]
        assert plan(errors, nfe) == min(others, key=cost)


def test_its_policy_forecasts_the_output_of_the_trunk(model, sampler, pipeline_rollout, reference, journal):
    def calibrate(setting):
        network = BatchedDenoiser(setting.denoiser, reference.conditions)
        return Samples(reference.conditions, reference_run(network, setting.form, journal, "calibration"))

    setting = ModelSetting(model, sampler, calibrate)
    fitted = dpcache(setting, 4)
    policy = fitted.policy
    assert policy.payload == "trunk-output"
    mask, steps = policy.branches[0].mask, fitted.chosen["steps"]
    assert [step for step, computed in enumerate(mask) if computed] == steps
    assert steps[:3] == [0, 1, 2]
    assert {sum(row) for row in policy.branches[0].predictor if row} == {1.0}
    latents = pipeline_rollout.run(policy, sampler, reference.conditions)
    assert torch.isfinite(latents).all()
    assert not torch.equal(latents, reference.latents)
    with pytest.raises(CannotRun, match="computes its first 3 steps"):
        dpcache(setting, 2)
