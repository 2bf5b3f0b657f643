"""The runtimes side by side, on one model, one prompt and one seed, in one run of this script.

    python benchmarks/runtimes.py --model wan2.1-nano --budgets 6,10,50 --json results.json

For each runtime, in a process of its own: the denoising loop over NFE x one full forward (all guidance
branches), a reused step over a computed one, import time and peak memory; between the two, the largest
difference of the final latents over their largest value. 1.00 means that reused steps, scheduler and
bookkeeping cost nothing.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from budc.policies.profile import find_weights, load_profile, read_prompts

RUNTIMES = ("diffusers", "onnxruntime")
IMPORTS = {
    "diffusers": "import budc.runtimes.diffusers; from diffusers import WanPipeline",
    "onnxruntime": "import budc.runtimes.onnxruntime",
}
SEED = 0


class Loop:
    """One runtime under one policy, as the measurements see it."""

    def __init__(
        self,
        run: Callable[[Callable[[int], object] | None], Any],
        forward: Callable[[], object],
        settle: Callable[[], object] = lambda: None,
    ) -> None:
        self.run, self.forward, self.settle = run, forward, settle

    def measure(self, mask: Sequence[bool], repeats: int) -> tuple[dict[str, float], Any]:
        """Return the figures and the final latents; loops and forwards take turns, medians count."""
        latents = self.run(None)
        nfe = sum(mask)
        loops, forwards, computed, reused = [], [], [], []
        for _ in range(repeats):
            loops.append(self._seconds(lambda: self.run(None)))
            # As many in a row as the loop has, so that what else the machine does takes as much of either.
            forwards.append(self._seconds(lambda: [self.forward() for _ in range(nfe)]) / nfe)
            ends = [time.perf_counter()]

            def note(_step: int, ends: list[float] = ends) -> None:
                self.settle()
                ends.append(time.perf_counter())

            self.run(note)
            # The first step carries what comes before the loop.
            for taken, compute in list(zip(np.diff(ends), mask, strict=True))[1:]:
                (computed if compute else reused).append(float(taken))
        loop, forward = statistics.median(loops), statistics.median(forwards)
        figures = {
            "loopSeconds": loop,
            "forwardSeconds": forward,
            "ratio": loop / (nfe * forward),
            "computedStepSeconds": statistics.median(computed),
        }
        if reused:
            step = statistics.median(reused)
            figures |= {
                "reusedStepSeconds": step,
                "reusedOverComputed": step / figures["computedStepSeconds"],
            }
        return figures, latents

    def _seconds(self, function: Callable[[], object]) -> float:
        self.settle()
        started = time.perf_counter()
        function()
        self.settle()
        return time.perf_counter() - started


def on_diffusers(path: Path, weights: Path, prompt: str, threads: int, _provider: str) -> Loop:
    """Prepare the pipeline with the policy applied."""
    import timing
    import torch

    from budc.runtimes.diffusers import apply
    from budc.schema.artifact import read

    torch.set_num_threads(threads)
    artifact = read(path)
    pipe, _ = timing.load(artifact.document)
    shape, sampler = artifact.document.shape, artifact.document.sampler
    cond, uncond = pipe.encode_prompt(prompt, negative_prompt="", max_sequence_length=shape.text_tokens)
    seen: dict[str, Any] = {}
    hook = pipe.transformer.register_forward_pre_hook(
        lambda _m, _a, inputs: seen.update(inputs), with_kwargs=True
    )

    def run(on_step: Callable[[int], object] | None) -> Any:
        def after(_pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            assert on_step is not None
            on_step(step)
            return tensors

        return pipe(
            prompt_embeds=cond,
            negative_prompt_embeds=uncond,
            height=shape.height,
            width=shape.width,
            num_frames=shape.frames,
            num_inference_steps=sampler.steps,
            guidance_scale=sampler.guidance,
            generator=torch.Generator().manual_seed(SEED),
            output_type="latent",
            callback_on_step_end=None if on_step is None else after,
        ).frames

    run(None)
    hook.remove()
    apply(pipe, artifact, allow_unsigned=True, weights_dir=weights)

    def forward() -> None:
        with torch.no_grad():
            for embeddings in (cond, uncond):
                pipe.transformer(**{**seen, "encoder_hidden_states": embeddings})

    on_cuda = torch.cuda.is_available()
    return Loop(
        lambda on_step: run(on_step).float().cpu().numpy(),
        forward,
        torch.cuda.synchronize if on_cuda else lambda: None,
    )


def on_onnxruntime(path: Path, export: Path, prompt: str, threads: int, provider: str) -> Loop:
    """Prepare the export under the policy."""
    from budc.runtimes.noise import seeded_noise
    from budc.runtimes.onnxruntime import load
    from budc.runtimes.ort.memory import Buffer, Call
    from budc.schema.artifact import read

    pipe = load(read(path), export, provider=provider, threads=threads, allow_unsigned=True)
    embeddings, denoiser = pipe.encode([prompt]), pipe.denoiser(1)
    branches, compute = len(embeddings), pipe.manifest.graphs["compute"]
    buffers = {
        spec.name: Buffer.of(
            pipe.provider,
            np.ones([branches if extent is None else extent for extent in spec.shape], spec.dtype),
        )
        for spec in (*compute.inputs, *compute.outputs)
    }
    inputs = {spec.name: buffers[spec.name] for spec in compute.inputs}
    outputs = {spec.name: buffers[spec.name] for spec in compute.outputs}
    session = pipe.provider.open(export / compute.file, batch=branches, captured=True)

    def run(on_step: Callable[[int], object] | None) -> Any:
        return denoiser.run(embeddings, seeded_noise((1, *pipe.manifest.latents), SEED), on_step)

    return Loop(run, Call(session, inputs, outputs, graph=int(pipe.provider.captures)))


def child(runtime: str, job: dict[str, Any]) -> dict[str, Any]:
    """Measure one runtime in this process; the latents go to files beside the artifacts."""
    prepare = on_diffusers if runtime == "diffusers" else on_onnxruntime
    model = Path(job["weights" if runtime == "diffusers" else "export"])
    rows = []
    for artifact, mask, nfe in job["policies"]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loop = prepare(Path(artifact), model, job["prompt"], job["threads"], job["provider"])
        figures, latents = loop.measure(mask, job["repeats"])
        np.save(f"{artifact}.{runtime}.npy", latents)
        rows.append({"runtime": runtime, "nfe": nfe, "steps": len(mask), **figures})
    device = job["provider"]
    if runtime == "diffusers":
        import torch

        device = "cuda" if torch.cuda.is_available() else "cpu"
    return {"rows": rows, "peakBytes": peak_memory(), "device": device, "torch": "torch" in sys.modules}


def peak_memory() -> int:
    """Return the most memory that this process held, in bytes; `getrusage` would count its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def in_a_process(runtime: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run `child` in a fresh interpreter and return what it says."""
    command = [sys.executable, __file__, "--child", runtime]
    environment = os.environ | {"OMP_NUM_THREADS": str(job["threads"])}
    done = subprocess.run(command, input=json.dumps(job), env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def import_seconds(runtime: str, repeats: int) -> float:
    """Median seconds to import a runtime in a fresh interpreter; the first one, from a cold disk, is left out."""
    code = f"import time; t = time.perf_counter(); {IMPORTS[runtime]}; print(time.perf_counter() - t)"
    taken = [
        float(
            subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
        )
        for _ in range(repeats + 1)
    ]
    return statistics.median(taken[1:])


def policies(
    model: str, budgets: Sequence[int], export: Path, folder: Path
) -> list[tuple[str, list[bool], int]]:
    """Write an unsigned artifact with a uniform mask for every budget, bound to the weights and the export."""
    import msgspec
    import overhead

    from budc.runtimes.onnx_folder import describe_export
    from budc.schema.artifact import seal

    variant, _ = describe_export(export)
    written = []
    for nfe in budgets:
        document = overhead.document(model, nfe)
        variants = [*document.model.variants, variant]
        binding = msgspec.structs.replace(document.model, variants=variants)
        path = folder / f"nfe{nfe}.budc.json"
        path.write_bytes(seal(msgspec.structs.replace(document, model=binding), None))
        written.append((str(path), list(document.policy.branches[0].mask), nfe))
    return written


def difference(artifact: str) -> float:
    """Return the largest difference of the two runtimes' latents over the largest value of the first."""
    first, second = (np.load(f"{artifact}.{runtime}.npy") for runtime in RUNTIMES)
    return float(np.abs(first - second).max() / np.abs(first).max())


def exported(model: str, weights: Path, folder: Path) -> Path:
    """Export the model."""
    from budc.compiler.export.export import export_onnx

    out = folder / "export"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(load_profile(model), weights, out, "float32")
    return out


@click.command(help=__doc__)
@click.option("--model", default="wan2.1-nano", show_default=True)
@click.option("--budgets", default="6,10,50", show_default=True)
@click.option("--repeats", type=int, default=5, show_default=True)
@click.option("--threads", type=int, default=1, show_default=True, help="of either runtime, on the CPU")
@click.option(
    "--provider", default="cpu", show_default=True, help="of ONNX Runtime; diffusers takes CUDA if it can"
)
@click.option("--export", type=click.Path(path_type=Path), help="of the model; default a new one, made first")
@click.option("--json", "target", type=click.Path(path_type=Path), help="where the figures go")
@click.option("--child", "runtime", type=click.Choice(RUNTIMES), hidden=True)
def main(
    model: str,
    budgets: str,
    repeats: int,
    threads: int,
    provider: str,
    export: Path | None,
    target: Path | None,
    runtime: str | None,
) -> None:
    """Measure and print."""
    if runtime is not None:
        print(json.dumps(child(runtime, json.load(sys.stdin))))
        return
    profile = load_profile(model)
    weights = find_weights(profile, None)
    with tempfile.TemporaryDirectory(prefix="budc-") as name:
        folder = Path(name)
        export = export or exported(model, weights, folder)
        job = {
            "policies": policies(model, [int(nfe) for nfe in budgets.split(",")], export, folder),
            "weights": str(weights),
            "export": str(export),
            "prompt": read_prompts(profile.prompts.held_out)[0],
            "threads": threads,
            "provider": provider,
            "repeats": repeats,
        }
        measured = {runtime: in_a_process(runtime, job) for runtime in RUNTIMES}
        differences = {nfe: difference(path) for path, _, nfe in job["policies"]}
    imports = {runtime: import_seconds(runtime, 3) for runtime in RUNTIMES}
    result = {
        "command": shlex.join(["python", *sys.argv]),
        "model": model,
        "threads": threads,
        "machine": _machine(measured),
        "python": platform.python_version(),
        "rows": [
            row | {"maxRelativeDifference": differences[row["nfe"]]}
            for runtime in RUNTIMES
            for row in measured[runtime]["rows"]
        ],
        "importSeconds": imports,
        "peakBytes": {runtime: measured[runtime]["peakBytes"] for runtime in RUNTIMES},
        "torchImported": {runtime: measured[runtime]["torch"] for runtime in RUNTIMES},
    }
    _print(result)
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")


def _machine(measured: dict[str, dict[str, Any]]) -> dict[str, str]:
    from importlib.metadata import version

    import torch

    names = {"cpu": f"CPU, {os.cpu_count()} cores"}
    if torch.cuda.is_available():
        names["cuda"] = torch.cuda.get_device_name()
    devices = {runtime: names[measured[runtime]["device"]] for runtime in RUNTIMES}
    packages = ("torch", "diffusers", "onnxruntime-gpu", "onnx", "numpy")
    return devices | {f"version of {package}": version(package) for package in packages}


def _print(result: dict[str, Any]) -> None:
    print(f"{result['model']}, {result['threads']} threads")
    print(
        f"{'runtime':<13}{'NFE':>4}{'loop':>11}{'forward':>12}{'ratio':>7}{'reused/full':>13}{'difference':>12}"
    )
    for row in result["rows"]:
        reused = f"{row['reusedOverComputed']:.3f}" if "reusedOverComputed" in row else "–"
        print(
            f"{row['runtime']:<13}{row['nfe']:>4}{row['loopSeconds'] * 1e3:>8.0f} ms"
            f"{row['forwardSeconds'] * 1e3:>9.2f} ms{row['ratio']:>7.2f}{reused:>13}"
            f"{row['maxRelativeDifference']:>12.1e}"
        )
    for runtime in RUNTIMES:
        print(
            f"{runtime}: import {result['importSeconds'][runtime]:.2f} s, "
            f"peak memory {result['peakBytes'][runtime] / 2**20:.0f} MiB, "
            f"torch imported: {'yes' if result['torchImported'][runtime] else 'no'}"
        )


if __name__ == "__main__":
    main()
