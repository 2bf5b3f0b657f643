"""Measurements in fresh interpreters, so that imports and memory of one runtime do not count for another."""

from __future__ import annotations

import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

SCRIPT = Path(__file__).parents[1] / "runtimes.py"
RUNTIMES = ("diffusers", "onnxruntime")
EXPORT = "export"
IMPORTS = {
    "diffusers": "import budc.runtimes.diffusers.apply; from diffusers import WanPipeline",
    "onnxruntime": "import budc.runtimes.onnxruntime.pipeline",
}


def child(task: str, job: dict[str, Any]) -> dict[str, Any]:
    """Do one task of the comparison in this process: measure a runtime, or export the model."""
    figures = (
        importlib.import_module("runtimes_compared.setup").export(job)
        if task == EXPORT
        else measure(task, job)
    )
    return {**figures, "peakBytes": peak_memory()}


def measure(runtime: str, job: dict[str, Any]) -> dict[str, Any]:
    """Measure one runtime; the latents go to files beside the artifacts."""
    prepare = importlib.import_module(f"runtimes_compared.{runtime}").prepare
    model = Path(job["weights" if runtime == "diffusers" else "export"])
    rows = []
    for policy in job["policies"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop = prepare(Path(policy["path"]), model, job["prompt"], job["threads"], job["provider"])
        figures, latents = loop.measure(policy["mask"], job["repeats"])
        # Pipeline and modules refer to each other; free them before the next ones are prepared.
        del loop
        gc.collect()
        np.save(f"{policy['path']}.{runtime}.npy", latents)
        labels = {name: policy[name] for name in ("nfe", "payload")}
        rows.append({"runtime": runtime, **labels, "steps": len(policy["mask"]), **figures})
        print(f"{runtime}: NFE {policy['nfe']}, {policy['payload']} measured", file=sys.stderr, flush=True)
    device = job["provider"]
    if runtime == "diffusers":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"rows": rows, "device": device, "torch": "torch" in sys.modules}


def peak_memory() -> int:
    """Return the peak memory of this process in bytes; `getrusage` would include its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def in_a_process(task: str, job: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run `child` in a fresh interpreter and return its result."""
    command = [sys.executable, str(SCRIPT), "--child", task]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    process = subprocess.run(
        command, input=json.dumps(job), env=environment, stdout=subprocess.PIPE, text=True
    )
    if process.returncode:
        raise SystemExit(process.returncode)
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result


def import_seconds(runtime: str, repeats: int) -> float:
    """Return the median seconds of an import in a fresh interpreter, without the first, which reads a cold disk."""
    code = f"import time; t = time.perf_counter(); {IMPORTS[runtime]}; print(time.perf_counter() - t)"
    seconds = [
        float(
            subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
        )
        for _ in range(repeats + 1)
    ]
    return statistics.median(seconds[1:])
