"""Which methods are ahead of a policy: their latent errors are lower by more than two paired standard errors.

d_p = log e_p(method) - log e_p(policy)              ahead where mean d + 2 s / √N < 0
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from budc.compiler.comparison.rivals import RIVALS
from budc.schema.evaluation import SettingResult
from budc.schema.report_names import FULL, LATENT_MSE, POLICY


class Ahead(NamedTuple):
    """A method: its title, its latent error over the policy's (geometric means), whether a policy could do the same."""

    title: str
    ratio: float
    expressible: bool


def methods_ahead(setting: SettingResult) -> list[Ahead]:
    """Return the methods that are ahead of the policy in a setting, the best first; none where values were left out."""
    policy = setting.method(POLICY)
    found = []
    for method in setting.methods:
        rival = RIVALS.get(method.name)
        if policy is None or rival is None or method.name in (POLICY, FULL):
            continue
        pairs = list(
            zip(method.samples.get(LATENT_MSE, ()), policy.samples.get(LATENT_MSE, ()), strict=False)
        )
        if len(pairs) < 2 or any(min(pair) <= 0 for pair in pairs):
            continue
        differences = [math.log(theirs / ours) for theirs, ours in pairs]
        mean, spread = statistics.fmean(differences), statistics.stdev(differences)
        if mean + 2 * spread / math.sqrt(len(differences)) < 0:
            found.append(Ahead(method.title, math.exp(mean), rival.expressible))
    return sorted(found, key=lambda ahead: ahead.ratio)
