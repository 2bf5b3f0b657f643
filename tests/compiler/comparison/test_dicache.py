"""DiCache: its extrapolation by hand, and its rollouts between all steps computed and the first alone."""

import pytest

torch = pytest.importorskip("torch")

from budc.compiler.comparison import dicache as method  # noqa: E402
from budc.compiler.comparison.dicache import dicache, extrapolation, roll_by_probe  # noqa: E402
from budc.compiler.comparison.fitted import ProbeRule, plain  # noqa: E402
from budc.compiler.comparison.probe import Probe  # noqa: E402
from budc.compiler.comparison.rivals import CannotRun  # noqa: E402
from budc.compiler.comparison.setting import ModelSetting, Samples  # noqa: E402
from budc.compiler.evaluation.reference import encode_prompts  # noqa: E402
from budc.compiler.models.model import load_model  # noqa: E402
from budc.compiler.rollouts.policies import full_policy  # noqa: E402
from budc.compiler.rollouts.policy import rollout_policy  # noqa: E402
from budc.policies.profile import load_profile  # noqa: E402


@pytest.fixture(scope="module")
def conditions(model):
    return encode_prompts(model, ["a small red circle moves left", "a great yellow box goes down"], range(2))


@pytest.fixture(scope="module")
def setting(model, sampler, conditions):
    return ModelSetting(model, sampler, lambda setting: Samples(conditions, None))


def rule(threshold):
    return ProbeRule(depth=1, threshold=threshold, largest_step=2.0)


def test_the_extrapolation_is_the_ratio_of_what_the_probe_moved_within_its_bounds():
    older, newest = torch.zeros(4, 2), torch.ones(4, 2)
    now = torch.tensor([[1.2, 1.2], [0.5, 0.5], [3.0, 3.0], [1.0, 1.6]])
    torch.testing.assert_close(extrapolation(now, newest, older, 1.5), torch.tensor([1.2, 1.0, 1.5, 1.3]))
    # One computed step alone: there is nothing to extrapolate from.
    torch.testing.assert_close(extrapolation(older, older, older, 1.5), torch.ones(4))


def test_the_probe_ends_after_its_blocks_and_leaves_the_model_as_it_was(setting, conditions):
    blocks, ran = setting.model.denoiser.blocks, []
    handles = [
        block.register_forward_hook(lambda *_, index=index: ran.append(index))
        for index, block in enumerate(blocks)
    ]
    entering, leaving = Probe(setting, 1)(
        conditions.noise, setting.form.timesteps.float()[0], conditions.embeddings["cond"]
    )
    for handle in handles:
        handle.remove()
    assert ran == [0]
    assert entering.shape == leaving.shape
    assert not torch.equal(entering, leaving)
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in blocks)
    # Two blocks of one size.
    assert Probe(setting, 1).share == 0.5


def test_with_no_threshold_every_step_is_computed(setting, conditions):
    latents, counts = roll_by_probe(setting, rule(0.0), conditions)
    full = full_policy(setting.form.steps, setting.branches)
    torch.testing.assert_close(latents, rollout_policy(setting.network_of(conditions), setting.form, full))
    assert counts.tolist() == [6.0, 6.0]


def test_with_a_threshold_out_of_reach_the_first_step_is_reused_and_probes_are_counted(setting, conditions):
    latents, counts = roll_by_probe(setting, rule(100.0), conditions)
    policy = plain(6, (0,), setting.branches)
    torch.testing.assert_close(latents, rollout_policy(setting.network_of(conditions), setting.form, policy))
    assert counts.tolist() == [1 + 5 * 0.5] * 2


def test_the_threshold_meets_the_budget(setting):
    fitted = dicache(setting, 5)
    _, counts = roll_by_probe(setting, fitted.probe, setting.calibration.conditions)
    assert abs(float(counts.mean()) - 5) <= 0.5
    assert fitted.forwards > 2 * 2 * 5


def test_a_budget_that_the_probes_alone_exceed_cannot_run(setting):
    with pytest.raises(CannotRun, match=r"0.5 of a forward at each of 6 steps: 3.5 evaluations"):
        dicache(setting, 3)


def test_the_bound_is_that_of_the_pipeline(setting):
    assert method.largest_step(setting) == 2.0


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_blocks_that_return_the_text_as_well_are_probed_alike(flux_profile, flux_folder):
    model = load_model(load_profile(flux_profile), flux_folder, torch.device("cpu"))
    conditions = encode_prompts(model, ["a red box", "a blue ring"], range(2))
    setting = ModelSetting(model, model.sampler(4), lambda setting: Samples(conditions, None))
    share = Probe(setting, 1).share
    assert 0 < share < 1
    for threshold, steps, evaluations in ((0.0, (0, 1, 2, 3), 4), (100.0, (0,), 1 + 3 * share)):
        latents, counts = roll_by_probe(setting, rule(threshold), conditions)
        policy = plain(4, steps, setting.branches)
        torch.testing.assert_close(
            latents, rollout_policy(setting.network_of(conditions), setting.form, policy)
        )
        assert counts.tolist() == pytest.approx([evaluations] * 2)
    assert method.largest_step(setting) == 1.5
