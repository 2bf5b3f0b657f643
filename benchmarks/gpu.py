"""What a policy costs on models of real size: denoising time over NFE x one full forward, memory, and spread.

    python benchmarks/gpu.py --models flux.1-dev,wan2.1 --json results.json
    python benchmarks/gpu.py --models wan2.1-14b --modes eager --prompts 3 --json results.json

Weights are random (never zeros), as timing does not depend on their values; text encoders and VAE are left out. 1.00
means that reused steps, scheduler and bookkeeping cost nothing. A forward is timed in the mode that the loop runs in.
Rows are on disk as soon as they are measured. `--device cpu` with an embedded model runs the same code anywhere.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import diffusers
import torch
from command_line import COUNT, MODELS, PATH, Names, check_budgets, script
from overhead import unmeasured
from random_models.peers import PEERS, evaluations
from random_models.pipeline import PIPELINES, image_tokens
from random_models.sampling import MODES, Sampling, spread

from budc.policies.profile import ModelProfile, load_profile
from budc.runtimes.sampling.families import family_of
from budc.runtimes.sampling.schedulers import sampler_binding
from budc.schema.mask import StepMask
from budc.schema.policy import AdapterRule, DenoiserBinding, ModelBinding, PolicyDocument, Variant
from budc.schema.predictor import Predictor

NOTHING = "sha256:" + "0" * 64
TERMS = (1.5, -0.5)
"""Coefficients of reused steps with two computed steps before them: the cost of two terms is measured, too."""


def document(sampling: Sampling, mask: StepMask) -> PolicyDocument:
    """Return a policy of this mask for random weights."""
    profile, pipe = sampling.profile, sampling.pipe
    sampler = sampler_binding(
        pipe.scheduler,
        len(mask),
        profile.guidance,
        family=family_of(pipe.transformer),
        guidance_rule=profile.guidance_rule,
        image_tokens=image_tokens(profile),
    )
    rows: list[tuple[float, ...]] = []
    for step, compute in enumerate(mask):
        rows.append(() if compute else TERMS if sum(list(mask)[:step]) > 1 else (1.0,))
    class_name = profile.denoisers["transformer"]
    binding = ModelBinding(
        profile=profile.name,
        family=profile.family,
        pipeline_class=profile.pipeline_class,
        denoisers=[
            DenoiserBinding(
                name="transformer", class_name=class_name, tensor_root=NOTHING, architecture=NOTHING
            )
        ],
        variants=[Variant(name="random", files={"transformer/config.json": "0" * 64})],
        adapters=AdapterRule(rule="none"),
    )
    return unmeasured(profile, binding, sampler, mask, Predictor.of(rows, mask))


def measure(sampling: Sampling, mode: str, mask: StepMask, prompts: int, repeats: int) -> dict[str, Any]:
    """Return the figures of one mode."""
    steps, policy = len(mask), document(sampling, mask)
    with sampling.mode(mode):
        plain = sampling.peak(2)
        with sampling.under(policy):
            figures = sampling.loop(mask, repeats)
            peak = sampling.peak(steps)
            times = sampling.seconds(range(1, prompts + 1), steps)
    return {
        "method": "budc",
        "mode": mode,
        "nfe": mask.nfe,
        **figures,
        "peakBytes": peak,
        "peakBytesWithout": plain,
        "spread": spread(times),
    }


def measure_peer(
    sampling: Sampling, name: str, mask: StepMask, forward: float, prompts: int
) -> dict[str, Any]:
    """Return the figures of another cache, eager, against a forward timed before."""
    steps = len(mask)
    with PEERS[name](sampling.pipe, mask):
        branches = len(sampling.profile.branches)
        nfe = evaluations(sampling.pipe.transformer, branches, lambda: sampling.run(0, steps))
        peak = sampling.peak(steps)
        times = spread(sampling.seconds(range(1, prompts + 1), steps))
    loop = times["meanSeconds"]
    figures = {"loopSeconds": loop, "forwardSeconds": forward, "ratio": loop / (nfe * forward)}
    return {"method": name, "mode": "eager", "nfe": nfe, **figures, "peakBytes": peak, "spread": times}


def shown(profile: ModelProfile, row: dict[str, Any]) -> str:
    """Return a row as a line."""
    memory = "" if row["peakBytes"] is None else f"{row['peakBytes'] / 2**30:>9.1f} GiB"
    return (
        f"{profile.name:<14}{row['method']:<11}{row['mode']:<13}{row['nfe']:>6.2f}{row['loopSeconds']:>9.3f} s"
        f"{row['forwardSeconds'] * 1e3:>10.2f} ms{row['ratio']:>8.3f}{row['spread']['deviation']:>9.2%}{memory}"
    )


@script(__doc__)
@click.option("--models", type=MODELS, default="flux.1-dev,wan2.1", show_default=True)
@click.option("--nfe", type=COUNT, default=10, show_default=True)
@click.option("--modes", type=Names(MODES), default=",".join(MODES), show_default=True)
@click.option(
    "--peers",
    type=Names(PEERS, may_be_empty=True),
    default=",".join(PEERS),
    show_default=True,
    help="other caches to measure, in the mode eager",
)
@click.option("--prompts", type=COUNT, default=20, show_default=True)
@click.option("--repeats", type=COUNT, default=5, show_default=True)
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cuda", show_default=True)
@click.option("--json", "target", type=PATH, help="where the rows go")
def main(
    models: tuple[str, ...],
    nfe: int,
    modes: tuple[str, ...],
    peers: tuple[str, ...],
    prompts: int,
    repeats: int,
    device: str,
    target: Path | None,
) -> None:
    """Measure, print and keep every row."""
    if "cache-dit" in peers and find_spec("cache_dit") is None:
        raise click.UsageError(
            "--peers: cache-dit is not installed; pip install 'budc[bench]', or --peers MagCache"
        )
    for name in models:
        kind = load_profile(name, "--models").pipeline_class
        if kind not in PIPELINES:
            raise click.UsageError(f"--models: {name} runs in {kind}, not in {' or '.join(PIPELINES)}")
    check_budgets(models, [nfe], "nfe")
    target_device = torch.device(device)
    if target_device.type == "cuda" and not torch.cuda.is_available():
        raise click.UsageError("no CUDA device is here; --device cpu --modes eager runs the embedded models")
    threads = f"CPU, {torch.get_num_threads()} threads"
    result: dict[str, Any] = {
        "command": shlex.join(["python", *sys.argv]),
        "device": torch.cuda.get_device_name(target_device) if target_device.type == "cuda" else threads,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "rows": [],
    }  # fmt: skip
    print(f"device: {result['device']}")
    print(
        f"{'model':<14}{'method':<11}{'mode':<13}{'NFE':>6}{'loop':>11}{'forward':>13}{'ratio':>8}{'spread':>9}"
    )
    for name in models:
        profile = load_profile(name)
        sampling = Sampling(profile, target_device)
        mask = StepMask.uniform(profile.steps, nfe)
        forward = None
        tasks = [("", mode) for mode in modes]
        tasks += [(peer, "eager") for peer in peers if "eager" in modes]
        for peer, mode in tasks:
            if peer:
                assert forward is not None
                row = measure_peer(sampling, peer, mask, forward, prompts)
            else:
                row = measure(sampling, mode, mask, prompts, repeats)
                forward = row["forwardSeconds"] if mode == "eager" else forward
            print(shown(profile, row), flush=True)
            result["rows"].append({"model": name, "steps": profile.steps, **row})
            if target:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(json.dumps(result, indent=1) + "\n")
        del sampling


if __name__ == "__main__":
    main()
