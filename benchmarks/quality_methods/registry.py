"""Every method by name, as the results and the command line call it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.magcache import magcache
from budc.compiler.comparison.meancache import meancache
from budc.compiler.comparison.paper_search import paper, paper_aligned
from budc.compiler.comparison.shortest_path import minimax, total
from budc.compiler.comparison.taylorseer import taylorseer
from budc.compiler.comparison.teacache import teacache
from budc.compiler.comparison.uniform import uniform
from budc.schema.policy import Payload
from quality_methods.ablation import ablation
from quality_methods.budc_joint import budc_joint, budc_separate
from quality_methods.budc_proxy import budc_proxy
from quality_methods.cache_dit_mask import cache_dit_mask
from quality_methods.ceiling import ceiling
from quality_methods.few_steps import SOLVERS, few_steps
from quality_methods.outcome import Outcome, run_fitted
from quality_methods.setting import Setting
from quality_methods.trained_steps import trained_steps

Run = Callable[[Setting, int, int, Path], Outcome]
"""(setting, NFE, seed, folder from which a killed run goes on) -> outcome."""


class Method(NamedTuple):
    """A method: its title in the table, how it runs, whether it is measured with several seeds, and its kind.

    `pipelines` are those that it is written for; empty for all. What is `by_name` is measured only where it
    is asked for.
    """

    title: str
    run: Run
    seeded: bool = False
    family: str = "caching"
    pipelines: tuple[str, ...] = ()
    by_name: bool = False


def _plain(function: Callable[..., Outcome], **settings: object) -> Run:
    return lambda setting, nfe, seed, folder: function(setting, nfe, **settings)


def _fitted(function: Callable[..., Fitted], **settings: object) -> Run:
    return lambda setting, nfe, seed, folder: run_fitted(setting, function(setting, nfe, **settings))


def _paper(prompts: int | None = None, search: Callable[..., Fitted] = paper) -> Run:
    return lambda setting, nfe, seed, folder: run_fitted(
        setting, search(setting, nfe, seed, folder, prompts=prompts)
    )


def _trained(solver: str, coefficients: bool) -> Run:
    return lambda setting, nfe, seed, folder: run_fitted(
        setting, trained_steps(setting, nfe, solver, folder, coefficients=coefficients)
    )


_WAN = ("WanPipeline",)
_PAYLOADS: tuple[tuple[str, Payload], ...] = (("residual", "trunk-residual"), ("velocity", "velocity"))
_TITLES = {"euler": "Euler", "unipc": "UniPC", "dpm++": "DPM++(2M)", "ab2": "AB2"}

METHODS: dict[str, Method] = {
    "joint": Method("**budc**, joint, thorough", budc_joint, family="budc"),
    **{
        f"joint-{effort}": Method(
            f"**budc**, joint, {effort}", partial(budc_joint, effort=effort), family="budc"
        )
        for effort in ("balanced", "fast")
    },
    "joint-align": Method(
        "**budc**, joint --align, thorough", partial(budc_joint, align=True), seeded=True, family="budc"
    ),
    **{
        f"joint-{effort}-align": Method(
            f"**budc**, joint --align, {effort}",
            partial(budc_joint, align=True, effort=effort),
            family="budc",
            by_name=True,
        )
        for effort in ("balanced", "fast")
    },
    **{
        f"joint-{effort}-proxy": Method(
            f"**budc**, joint --proxy, {effort}",
            partial(budc_proxy, effort=effort),
            family="budc",
            by_name=True,
        )
        for effort in ("balanced", "fast")
    },
    "joint-separate": Method("**budc**, joint --branches separate", budc_separate, family="budc"),
    "joint-auto": Method(
        "**budc**, joint --align --steps auto",
        partial(budc_joint, align=True, auto=True),
        family="budc",
        by_name=True,
    ),
    "uniform": Method("uniform mask", _fitted(uniform)),
    "paper": Method("paper's search, on all prompts", _paper(), seeded=True),
    "paper-one": Method("paper's search, on one prompt", _paper(prompts=1), seeded=True),
    "paper-one-aligned": Method(
        "paper's search, on one prompt, and schedule alignment",
        _paper(1, paper_aligned),
        seeded=True,
        by_name=True,
    ),
    "dpcache": Method("shortest path, sum (DPCache-style)", _fitted(total)),
    "lemica": Method("shortest path, minimax (LeMiCa-style)", _fitted(minimax)),
    "meancache": Method("MeanCache-style", _fitted(meancache)),
    "teacache": Method("TeaCache", _fitted(teacache, kind="input")),
    "teacache-embedding": Method(
        "TeaCache, its Wan rule", _fitted(teacache, kind="embedding"), pipelines=_WAN
    ),
    "magcache": Method("MagCache", _fitted(magcache)),
    "taylorseer-1": Method("TaylorSeer, order 1", _fitted(taylorseer, order=1)),
    "taylorseer-2": Method("TaylorSeer, order 2", _fitted(taylorseer, order=2)),
    "cache-dit": Method("cache-dit, static mask", _plain(cache_dit_mask, order=None), pipelines=_WAN),
    "cache-dit-taylor": Method(
        "cache-dit, static mask, Taylor", _plain(cache_dit_mask, order=1), pipelines=_WAN
    ),
    **{
        f"steps-{name}": Method(
            f"{_TITLES[name]}, fewer steps", _plain(few_steps, solver=name), family="steps"
        )
        for name in SOLVERS
    },
    **{
        f"steps-{name}-{kind}": Method(
            f"{_TITLES[name]}, fewer steps, {title}", _trained(name, coefficients), family="steps"
        )
        for kind, title, coefficients in (
            ("timesteps", "best timesteps", False),
            ("trained", "trained", True),
        )
        for name in SOLVERS
    },
    "joint-align-long": Method(
        "joint --align (seed 0), trained for long", ceiling, family="ablation", by_name=True
    ),
    **{
        f"joint-mask-{rule}-{name}": Method(
            f"joint's mask, {rule} coefficients, {payload}",
            partial(ablation, rule=rule, payload=payload),
            family="ablation",
            by_name=True,
        )
        for rule in ("plain", "gram", "tracked")
        for name, payload in _PAYLOADS
    },
}


def applicable(methods: Sequence[str], pipeline: str) -> tuple[list[str], list[str]]:
    """Return the methods that can run with a pipeline class, and those that are written for other classes."""
    fitting = [name for name in methods if not METHODS[name].pipelines or pipeline in METHODS[name].pipelines]
    return fitting, [name for name in methods if name not in fitting]
