"""budc with `--proxy`: masks searched at fewer frames, or for images at fewer pixels, and shortly at the real size.

Forwards of the proxy are counted as the share of one at the real size that they are in FLOPs.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.evaluation.reference import encode_samples
from budc.compiler.models.denoiser import model_denoiser
from budc.compiler.models.model import LoadedModel
from budc.compiler.planning.cost import forward_cost
from budc.compiler.proxy import parse_proxy
from budc.compiler.rollouts.schedule import NoiseSchedule
from budc.compiler.selection.calibration import Calibration
from budc.compiler.selection.finder import Finder
from budc.compiler.selection.proxy import ProxySearch, after_proxy, with_proxy
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal
from budc.policies.profile import ModelProfile
from quality_methods.budc_joint import run
from quality_methods.outcome import Outcome
from quality_methods.setting import Setting


def budc_proxy(setting: Setting, nfe: int, seed: int, folder: Path, *, effort: str) -> Outcome:
    """Compile with a proxy, then run on the held-out prompts; a search that was stopped goes on from `folder`."""
    profile = setting.model.profile
    text = proxy_of(profile)
    small = replace(setting.model, profile=parse_proxy(text, profile).of(profile))
    samples = encode_samples(small, setting.calibration_samples)
    proxied = _task(small, samples, model_denoiser(small), nfe, seed, effort)
    wanted = _task(setting.model, setting.calibration.conditions, setting.denoiser, nfe, seed, effort)
    name = f"{setting.name} {text} {effort} {nfe} {seed} {len(samples)}"
    with Journal(folder / "proxy", f"{name} proxy") as there, Journal(folder / "real", name) as here:
        found = ProxySearch(proxied, there).find(proxied)
        after = after_proxy(wanted, found)
        result = with_proxy(Finder(Calibration(after, here)).find(after), found)
    share = forward_cost(small.profile).flops / forward_cost(profile).flops
    spent = {"proxy": text, "proxyForwards": found.forwards, "share": share}
    outcome = run(setting, result)
    return replace(
        outcome,
        forwards=outcome.forwards + round(share * found.forwards),
        chosen={**outcome.chosen, **spent},
    )


def proxy_of(profile: ModelProfile) -> str:
    """Return the proxy of a model: about half the frames, or of images three quarters of each side."""
    if profile.frames > 1:
        return f"frames={profile.frames // 8 * 4 + 1}"
    height, width = (side * 3 // 64 * 16 for side in (profile.height, profile.width))
    return f"size={height}x{width}"


def _task(
    model: LoadedModel, conditions: Conditioning, denoiser: Denoiser, nfe: int, seed: int, effort: str
) -> Task:
    sampler = model.sampler(model.profile.steps)
    return Task(
        denoiser=denoiser,
        schedule=NoiseSchedule.of(model.scheduler, sampler.sigmas, sampler.timesteps),
        conditions=conditions,
        nfe=nfe,
        annealing=model.profile.search,
        effort=effort,
        seed=seed,
    )
