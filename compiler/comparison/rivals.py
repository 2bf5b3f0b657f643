"""The rivals by name, as `--against` takes them."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from budc.option_names import option
from budc.policies.profile import ModelProfile
from budc.schema.errors import UsageError
from budc.schema.report_names import FEWER_STEPS, UNIFORM

if TYPE_CHECKING:
    from budc.compiler.comparison.fitted import Fitted
    from budc.compiler.comparison.setting import Setting


class CannotRun(Exception):  # noqa: N818
    """A method has no form with so many evaluations."""


@dataclass(frozen=True)
class Rival:
    """A method: its title, where it is published, and the function that fits it.

    `pipelines` are those that it is written for; empty for all, and for networks without a pipeline unless it is
    `of_transformers`.
    """

    title: str
    source: str
    function: str = ""
    """"module:function" below `budc.compiler.comparison`; empty for fewer steps, which need no fitting."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    pipelines: tuple[str, ...] = ()
    searches: bool = False
    """Whether it takes a seed, and a folder from which it goes on when it was killed."""
    shares_search: str = ""
    """The rival whose search it begins with, so that it is not run twice."""
    of_transformers: bool = False
    """Whether it needs a transformer of diffusers."""
    expressible: bool = True
    """Whether a policy can do the same: not where it decides sample by sample, or its solver is no scheduler's."""

    def runs_on(self, profile: ModelProfile | None) -> bool:
        """Whether it can be fitted to a model; None: to a network without a pipeline."""
        if profile is None:
            return not (self.pipelines or self.of_transformers)
        return not self.pipelines or (
            profile.pipeline_class in self.pipelines and len(profile.denoisers) == 1
        )

    def fit(self, setting: Setting, nfe: int, seed: int, folder: Path) -> Fitted:
        """Fit it to a setting at so many evaluations.

        Raises:
            CannotRun: it has no form with so many.
        """
        module, _, name = self.function.partition(":")
        function = getattr(importlib.import_module(f"budc.compiler.comparison.{module}"), name)
        given = {"seed": seed, "folder": folder} if self.searches else {}
        fitted: Fitted = function(setting, nfe, **given, **self.settings)
        return fitted


_TEACACHE = ("FluxPipeline", "WanPipeline")

RIVALS: Mapping[str, Rival] = {
    FEWER_STEPS: Rival("fewer steps", "the model's own scheduler"),
    UNIFORM: Rival("uniform mask", "plain reuse", "uniform:uniform"),
    "teacache": Rival(
        "TeaCache", "arXiv 2411.19108", "teacache:teacache", {"kind": "input"}, _TEACACHE, expressible=False
    ),
    "dicache": Rival(
        "DiCache", "arXiv 2508.17356", "dicache:dicache", pipelines=_TEACACHE, expressible=False
    ),
    "magcache": Rival("MagCache", "arXiv 2506.09045", "magcache:magcache"),
    "taylorseer-1": Rival("TaylorSeer, order 1", "arXiv 2503.06923", "taylorseer:taylorseer", {"order": 1}),
    "taylorseer-2": Rival("TaylorSeer, order 2", "arXiv 2503.06923", "taylorseer:taylorseer", {"order": 2}),
    "dpcache": Rival("shortest path, sum (DPCache-style)", "arXiv 2602.22654", "shortest_path:total"),
    "dpcache-linear": Rival(
        "DPCache, as in SGLang", "arXiv 2602.22654", "dpcache:dpcache", of_transformers=True
    ),
    "lemica": Rival("shortest path, minimax (LeMiCa-style)", "arXiv 2511.00090", "shortest_path:minimax"),
    "meancache": Rival("MeanCache-style", "arXiv 2601.19961", "meancache:meancache", expressible=False),
    "ld3": Rival(
        "own solver, timesteps learned (LD3-style)",
        "arXiv 2405.15506",
        "learned_solver:learned_solver",
        {"weights": False},
        searches=True,
        expressible=False,
    ),
    "dyweight": Rival(
        "own solver, timesteps and weights learned (DyWeight-style)",
        "arXiv 2603.11607",
        "learned_solver:learned_solver",
        {"weights": True},
        searches=True,
        expressible=False,
    ),
    "paper": Rival(
        "paper's search, on one prompt",
        "arXiv 2606.13496",
        "paper_search:paper",
        {"prompts": 1},
        searches=True,
    ),
    "paper-aligned": Rival(
        "paper's search, on one prompt, and schedule alignment",
        "arXiv 2606.13496",
        "paper_search:paper_aligned",
        {"prompts": 1},
        searches=True,
        shares_search="paper",
    ),
    "paper-all": Rival(
        "paper's search, on all prompts", "arXiv 2606.13496", "paper_search:paper", searches=True
    ),
}
DEFAULT = (FEWER_STEPS, UNIFORM)
"""What takes no calibration prompts."""


def choose_rivals(text: str | None, profile: ModelProfile | None) -> tuple[str, ...]:
    """Return the rivals that a user names with commas between; None: the default, "all": all that the model can have.

    A network has no profile.

    Raises:
        UsageError: a name is not known, or the method is not written for the model.
    """
    if text is None:
        return DEFAULT
    if text == "none":
        return ()
    if text == "all":
        return tuple(name for name, rival in RIVALS.items() if rival.runs_on(profile))
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in RIVALS:
            near = difflib.get_close_matches(name, RIVALS, n=1, cutoff=0.5)
            raise UsageError(
                f"{option('against')}: {name!r} is no method that is known here",
                remedy=f"did you mean {near[0]}?" if near else f"there are {', '.join(RIVALS)}, all, none",
            )
        if RIVALS[name].runs_on(profile):
            continue
        if profile is None:
            raise UsageError(
                f"{option('against')}: {name} looks into a transformer of diffusers, which your network is not",
                remedy="leave it out, or use all",
            )
        raise UsageError(
            f"{option('against')}: {name} is written for one denoiser of {' or '.join(RIVALS[name].pipelines)}, "
            f"{profile.name} is a {profile.pipeline_class} of {len(profile.denoisers)}",
            remedy="leave it out, or use all",
        )
    return names
