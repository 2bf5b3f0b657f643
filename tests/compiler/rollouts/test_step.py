"""The step that all rollouts take: what is computed together, what is reused, in which order branches are guided."""

import torch

from budc.compiler.rollouts.linear_form import LinearForm
from budc.compiler.rollouts.step import Trajectory, take_step

# x_{k+1} = x_0 + v_0 + ... + v_k
FORM = LinearForm(torch.ones(3), torch.tril(torch.ones(3, 2), -1), torch.tensor([900.0, 500.0]))


class Sum:
    """Velocity = latents, residual = -latents; guidance adds up the branches and notes their order."""

    branches = ("cond", "uncond")

    def __init__(self):
        self.computed, self.guided = [], []

    def compute(self, branch, latents, timestep):
        self.computed.append((branch, latents.flatten().tolist(), float(timestep)))
        return latents, -latents

    def reuse(self, branch, residual, latents, timestep):
        return residual + 10 * latents

    def guide(self, velocities, timestep):
        self.guided.append(tuple(velocities))
        return sum(velocities.values())


class Computing(Trajectory):
    """Computes the given branches; the others reuse 5."""

    def __init__(self, noise, branches, payload="velocity"):
        super().__init__(FORM, torch.tensor([[noise]]), payload)
        self.branches, self.cached = branches, {}

    def computing(self):
        return self.branches

    def cache(self, branch, cached):
        self.cached[branch] = float(cached)

    def reused(self, current):
        assert sorted(current.computed) == sorted(self.branches), "what computes comes first"
        return {name: torch.tensor([[5.0]]) for name in Sum.branches if name not in self.branches}


def test_rollouts_that_compute_a_branch_do_so_in_one_batch():
    denoiser = Sum()
    first, second, third = (
        Computing(1.0, ("cond", "uncond")),
        Computing(2.0, ("uncond",)),
        Computing(3.0, ()),
    )
    take_step(denoiser, [first, second, third])
    assert denoiser.computed == [("cond", [1.0], 900.0), ("uncond", [1.0, 2.0], 900.0)]
    assert [float(rollout.velocities[0]) for rollout in (first, second, third)] == [2.0, 7.0, 10.0]
    assert [rollout.step for rollout in (first, second, third)] == [1, 1, 1]
    assert float(second.latents) == 2.0 + 7.0
    take_step(denoiser, [second])
    assert denoiser.computed[-1] == ("uncond", [9.0], 500.0)


def test_branches_are_guided_in_the_denoisers_order_whichever_computed():
    denoiser = Sum()
    take_step(denoiser, [Computing(1.0, ("uncond",))])
    take_step(denoiser, [Computing(1.0, ("cond",))])
    assert denoiser.guided == [("cond", "uncond")] * 2


def test_the_payload_decides_what_is_cached_and_what_a_reused_step_runs():
    velocity, residual = Computing(2.0, ("cond",)), Computing(2.0, ("cond",), "trunk-residual")
    take_step(Sum(), [velocity, residual])
    assert (velocity.cached, residual.cached) == ({"cond": 2.0}, {"cond": -2.0})
    # uncond: 5 as it is, or in the trunk's place.
    assert float(velocity.velocities[0]) == 2.0 + 5.0
    assert float(residual.velocities[0]) == 2.0 + 5.0 + 10 * 2.0
