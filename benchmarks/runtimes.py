"""Compare the runtimes on one model, one prompt and one seed.

    python benchmarks/runtimes.py --model wan2.1-nano --budgets 6,10,50 --json results.json

Each runtime runs in a process of its own. Measured are the denoising loop, one full forward of all guidance branches,
the ratio of the loop to NFE forwards, the ratio of a reused to a computed step, import time and peak memory. A ratio of
1.00 means that reused steps, scheduler and bookkeeping cost nothing. The column "pipeline" is the loop of diffusers
without any forward and without a policy. The column "difference" is the largest difference between the final latents of
the two runtimes, over their largest value.

The policies have uniform masks and plain reuse, once of trunk residuals and once of velocities.

    python benchmarks/runtimes.py --model wan2.1 --random 64x64x9 --budgets 6,10 --repeats 1 --json results.json

does the same with a model of real size and random weights, for clips of that shape.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
from command_line import COUNT, MODEL, NUMBERS, PATH, Names, check_budgets, script
from runtimes_compared.process import EXPORT, RUNTIMES, child, import_seconds, in_a_process
from runtimes_compared.table import lines

from budc.policies.profile import read_prompts
from budc.schema.policy import PAYLOADS


@script(__doc__)
@click.option("--model", type=MODEL, default="wan2.1-nano", show_default=True)
@click.option("--budgets", type=NUMBERS, default="6,10,50", show_default=True)
@click.option(
    "--payloads",
    type=Names(PAYLOADS),
    default=",".join(PAYLOADS),
    show_default=True,
    help="what is reused; a policy that reuses no step is measured with the first only",
)
@click.option("--repeats", type=COUNT, default=5, show_default=True)
@click.option("--threads", type=COUNT, default=1, show_default=True, help="CPU threads of each runtime")
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="of ONNX Runtime; diffusers uses CUDA if it can",
)
@click.option("--export", type=PATH, help="an export of the model; default a new one")
@click.option(
    "--random",
    "shape",
    metavar="HxWxF",
    help="use random weights for the model's architecture, and clips of this shape",
)
@click.option("--json", "target", type=PATH, help="file to write the figures to")
@click.option("--child", "task", type=click.Choice([*RUNTIMES, EXPORT]), hidden=True)
def main(
    model: str,
    budgets: tuple[int, ...],
    payloads: tuple[str, ...],
    repeats: int,
    threads: int,
    provider: str,
    export: Path | None,
    shape: str | None,
    target: Path | None,
    task: str | None,
) -> None:
    """Measure and print."""
    if task is not None:
        print(json.dumps(child(task, json.load(sys.stdin))))
        return
    check_budgets([model], budgets)
    # This import loads torch, which the process that measures ONNX Runtime must not have.
    from runtimes_compared.setup import policies, weights_of

    with tempfile.TemporaryDirectory(prefix="budc-") as name:
        folder = Path(name)
        profile, weights = weights_of(model, shape, folder)
        export_figures = None
        if export is None:
            export = folder / "export"
            job = {"profile": msgspec.to_builtins(profile), "weights": str(weights), "export": str(export)}
            export_figures = in_a_process(EXPORT, job, os.cpu_count() or 1)
        job = {
            "policies": policies(profile, weights, export, budgets, payloads, folder),
            "weights": str(weights),
            "export": str(export),
            "prompt": read_prompts(profile.prompts.held_out)[0],
            "threads": threads,
            "provider": provider,
            "repeats": repeats,
        }
        measured = {runtime: in_a_process(runtime, job, threads) for runtime in RUNTIMES}
        differences = [largest_difference(policy["path"]) for policy in job["policies"]]
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "model": model,
        "shape": [profile.height, profile.width, profile.frames],
        "random": shape is not None,
        "threads": threads,
        **figures(measured, differences),
        "export": export_figures,
    }
    print(*lines(result), sep="\n")
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")


def figures(measured: Mapping[str, Any], differences: Sequence[float]) -> dict[str, Any]:
    """Return what the processes of the runtimes measured, beside the runtimes' differences by policy."""
    return {
        "machine": _machine(measured),
        "python": platform.python_version(),
        "rows": [
            row | {"maxRelativeDifference": difference}
            for runtime in RUNTIMES
            for row, difference in zip(measured[runtime]["rows"], differences, strict=True)
        ],
        "importSeconds": {runtime: import_seconds(runtime, 3) for runtime in RUNTIMES},
        "peakBytes": {runtime: measured[runtime]["peakBytes"] for runtime in RUNTIMES},
        "torchImported": {runtime: measured[runtime]["torch"] for runtime in RUNTIMES},
    }


def largest_difference(artifact: str) -> float:
    """Return the largest difference of the two runtimes' latents over the largest value of the first."""
    first, second = (np.load(f"{artifact}.{runtime}.npy") for runtime in RUNTIMES)
    return float(np.abs(first - second).max() / np.abs(first).max())


def _machine(measured: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    from importlib.metadata import version

    import torch

    # A PyTorch without CUDA sees no device, where ONNX Runtime may see one.
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "CUDA, not seen by PyTorch"
    names = {"cpu": f"CPU, {os.cpu_count()} cores", "cuda": cuda}
    devices = {runtime: names[measured[runtime]["device"]] for runtime in RUNTIMES}
    packages = ("torch", "diffusers", "onnxruntime-gpu", "onnx", "numpy")
    return devices | {f"version of {package}": version(package) for package in packages}


if __name__ == "__main__":
    main()
