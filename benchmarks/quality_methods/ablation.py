"""What each part of the joint policy contributes: its mask with every rule for the coefficients and either payload.

The mask is that of `joint` with seed 0; coefficients are fitted on the calibration prompts. "plain" reuses the newest
payload, "gram" is least squares on the full run, "tracked" is fitted along the policy's own trajectory.
"""

from __future__ import annotations

from pathlib import Path

from budc.compiler.rollouts.tree import Tree
from budc.compiler.search import Candidate
from budc.compiler.search.space import Rule
from budc.compiler.selection.scores import policy_of
from budc.schema.policy import Payload
from quality_methods.budc_joint import find
from quality_methods.outcome import Outcome, static
from quality_methods.setting import Setting


def ablation(setting: Setting, nfe: int, seed: int, folder: Path, rule: Rule, payload: Payload) -> Outcome:
    """Fit the coefficients of joint's mask by one rule and run it."""
    policy = find(setting, nfe, seed, folder.with_name(f"joint-{nfe}-{seed}")).policy
    masks = tuple(policy.for_branch(branch).step_mask() for branch in setting.branches)
    candidate = Candidate(masks if len(set(masks)) > 1 else masks[:1], rule, payload)
    tree = Tree(setting.network(setting.calibration), setting.form, setting.calibration.run, setting.folder)
    (rollout,) = tree.roll_out([candidate])
    fitted = policy_of(tree, candidate, rollout.rows)
    steps = [list(mask.compute_steps) for mask in candidate.masks]
    return static(setting, fitted, forwards=rollout.forwards, chosen={"steps": steps})
