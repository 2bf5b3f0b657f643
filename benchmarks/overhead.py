"""What a policy costs beyond its evaluations: denoising time over NFE x one full forward.

    python benchmarks/overhead.py --models wan2.1-nano,wan2.1-mini --json results.json

1.00 means that reused steps, scheduler and bookkeeping cost nothing. On the embedded models a forward takes
milliseconds, so costs that are constant per step weigh far more than on a real model; the last column shows them alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import timing
import torch
from command_line import COUNT, MODELS, NUMBERS, PATH, check_budgets, script
from saving import device_name, save_rows

from budc.compiler.emit import output_shape
from budc.compiler.models.binding import model_binding
from budc.compiler.models.model import load_model
from budc.compiler.rollouts.policies import shared_policy
from budc.policies.profile import ModelProfile, find_weights, load_profile, read_prompts
from budc.runtimes.admission.trust import UnsignedWarning
from budc.runtimes.diffusers.apply import applied
from budc.schema.mask import StepMask
from budc.schema.policy import (
    SCHEMA_VERSION,
    Budget,
    ModelBinding,
    PolicyDocument,
    PromptSet,
    Quality,
    SamplerBinding,
    Search,
)  # fmt: skip
from budc.schema.predictor import Predictor


def documents(profile: ModelProfile, folder: Path, budgets: Sequence[int]) -> list[PolicyDocument]:
    """Return the uniform policy of each budget for the model in `folder`; no quality is measured, nothing is signed."""
    model = model_binding(profile, folder)
    sampler = load_model(profile, folder, torch.device("cpu")).sampler(profile.steps)
    masks = [StepMask.uniform(profile.steps, nfe) for nfe in budgets]
    return [unmeasured(profile, model, sampler, mask, Predictor.plain_reuse(mask)) for mask in masks]


def unmeasured(
    profile: ModelProfile, model: ModelBinding, sampler: SamplerBinding, mask: StepMask, predictor: Predictor
) -> PolicyDocument:
    """Return a policy that claims no quality."""
    nothing = PromptSet(digest="sha256:" + "0" * 64, size=0)
    return PolicyDocument(
        schema_version=SCHEMA_VERSION,
        name=f"{profile.name}-uniform-nfe{mask.nfe}",
        revision=1,
        issued_at="2026-01-01T00:00:00Z",
        model=model,
        sampler=sampler,
        shape=output_shape(profile),
        budget=Budget(
            requested=str(mask.nfe), nfe=mask.nfe, branches=dict.fromkeys(profile.branches, mask.nfe)
        ),
        policy=shared_policy(mask, predictor, profile.branches),
        quality=Quality(objective="none", calibration=nothing, held_out=nothing, metrics=[], baselines=[]),
        search=Search(algorithm="uniform", seed=0, candidates=0, forwards=0, settings={}, versions={}),
    )


def measure(name: str, nfe: int, repeats: int) -> dict[str, Any]:
    """Time the loop at one budget, and one forward right after it, in one process."""
    profile = load_profile(name)
    prompt = read_prompts(profile.prompts.held_out)[0]
    (policy,) = documents(profile, find_weights(profile, None), [nfe])
    pipe, folder = timing.load(policy)
    run = timing.denoiser(pipe, policy, prompt, seed=0)
    with timing.forward_inputs(pipe, 1) as seen:
        run(1)
    (inputs,) = seen
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", UnsignedWarning)
        with applied(pipe, policy, allow_unsigned=True, weights_dir=folder):
            loop = timing.seconds(lambda: run(policy.sampler.steps), repeats)
        forward = timing.seconds(lambda: pipe.transformer(**inputs), 10 * repeats)
    ideal = nfe * len(policy.budget.branches) * forward
    return {
        "model": name,
        "nfe": nfe,
        "steps": policy.sampler.steps,
        "loopSeconds": loop,
        "forwardSeconds": forward,
        "ratio": loop / ideal,
        "overheadPerStepSeconds": (loop - ideal) / policy.sampler.steps,
    }


@script(__doc__)
@click.option("--models", type=MODELS, default="wan2.1-nano,wan2.1-mini", show_default=True)
@click.option("--budgets", type=NUMBERS, default="6,10,25,50", show_default=True)
@click.option("--repeats", type=COUNT, default=5, show_default=True)
@click.option("--json", "target", type=PATH, help="where the rows go")
def main(models: tuple[str, ...], budgets: tuple[int, ...], repeats: int, target: Path | None) -> None:
    """Measure and print."""
    check_budgets(models, budgets)
    rows = [measure(name, nfe, repeats) for name in models for nfe in budgets]
    print(f"device: {device_name()}")
    print(f"{'model':<14}{'NFE':>4}{'loop':>10}{'forward':>11}{'ratio':>8}{'beyond, per step':>19}")
    for row in rows:
        print(
            f"{row['model']:<14}{row['nfe']:>4}{row['loopSeconds'] * 1e3:>7.0f} ms"
            f"{row['forwardSeconds'] * 1e3:>8.2f} ms{row['ratio']:>8.2f}{row['overheadPerStepSeconds'] * 1e3:>16.2f} ms"
        )
    if target:
        save_rows(target, rows)


if __name__ == "__main__":
    main()
