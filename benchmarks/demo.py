"""The main job on the embedded video model: compile, sign, verify, generate, and compare with the full run.

    python benchmarks/demo.py --out out/demo

Every figure of the table at the end is measured by this run: errors and PSNR against the full run on held-out
prompts (from the artifact's quality report), and the time of one denoising loop on this machine.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import click
import msgspec
import timing
from command_line import COUNT, MODEL, PATH, script
from rich.console import Console
from rich.table import Table

from budc.policies.profile import find_weights, load_profile, read_prompts
from budc.runtimes.admission.trust import UnsignedWarning
from budc.runtimes.diffusers.apply import applied
from budc.schema.artifact import open_artifact
from budc.schema.mask import StepMask
from budc.schema.policy import Metric, Policy, PolicyDocument
from budc.schema.predictor import Predictor
from budc.schema.trust import Trust

NAMES = {"uniform": "uniform mask", "fewer-steps": "fewer steps, no cache", "full": "full run"}


def budc(*arguments: str) -> None:
    """Run the command line as a user would, and stop where it stops."""
    print(f"\n$ budc {shlex.join(arguments)}", flush=True)
    done = subprocess.run([str(Path(sys.executable).with_name("budc")), *arguments], check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def uniform(document: PolicyDocument) -> PolicyDocument:
    """Return the document with the uniform mask in place of the policy's own."""
    mask = StepMask.uniform(document.sampler.steps, document.budget.nfe)
    policy = Policy.of("trunk-residual", dict.fromkeys(document.budget.branches, Predictor.plain_reuse(mask)))
    return msgspec.structs.replace(document, policy=policy)


def times(document: PolicyDocument, prompt: str, repeats: int) -> dict[str, float]:
    """Time one denoising loop of every method, seconds."""
    pipe, folder = timing.load(document)
    run = timing.denoiser(pipe, document, prompt, seed=0)
    steps, nfe = document.sampler.steps, document.budget.nfe
    taken = {
        "full": timing.seconds(lambda: run(steps), repeats),
        "fewer-steps": timing.seconds(lambda: run(nfe), repeats),
    }
    for name, policy in (("policy", document), ("uniform", uniform(document))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsignedWarning)  # a copy of the document that was verified above
            with applied(pipe, timing.for_embeddings(policy), allow_unsigned=True, weights_dir=folder):
                taken[name] = timing.seconds(lambda: run(steps), repeats)
    return taken


def _cells(metrics: list[Metric]) -> list[str]:
    named = {metric.name: metric for metric in metrics}
    error, psnr = named["latent-mse"], named.get("psnr")
    figures = (error.geometric_mean or 0.0, error.mean, error.p95 or 0.0)
    return [
        *(f"{figure:.2e}" if figure else "0" for figure in figures),
        f"{psnr.mean:.1f} dB" if psnr else "exact",
    ]


@script(__doc__)
@click.option("--model", type=MODEL, default="wan2.1-nano", show_default=True)
@click.option("--budget", default="10", show_default=True)
@click.option("--search", default="joint", show_default=True)
@click.option("--out", type=PATH, required=True)
@click.option("--samples", type=COUNT, default=5, show_default=True, help="timings per method")
def main(model: str, budget: str, search: str, out: Path, samples: int) -> None:
    """Run the demo."""
    out.mkdir(parents=True, exist_ok=True)
    key, public = out / "release.key", out / "release.pub"
    artifact, picture = out / f"{model}-nfe{budget}.budc.json", out / "compare.png"
    report = out / "report.html"
    prompt = read_prompts(load_profile(model).prompts.held_out)[0]
    if not key.exists():
        budc("keygen", "--out", str(out / "release"))
    budc(
        *("compile", "--model", model, "--budget", budget, "--search", search),
        *("--key", str(key), "--out", str(artifact)),
    )
    weights = find_weights(load_profile(model), None)
    budc("verify", str(artifact), "--trust", str(public), "--weights", str(weights))
    budc(
        *("run", str(artifact), "--trust", str(public), "--prompt", prompt),
        *("--compare", "--out", str(picture)),
    )
    budc("report", str(artifact), "--trust", str(public), "--out", str(report))
    document = open_artifact(artifact, Trust.from_pem(public)).document
    taken = times(document, prompt, samples)
    table = Table(
        title=f"{document.name}: {document.quality.held_out.size} held-out prompts, errors against the full run"
    )
    for column in ("method", "NFE", "latent-mse, gmean", "mean", "95th pct", "PSNR", "time"):
        table.add_column(column, justify="left" if column == "method" else "right", no_wrap=True)
    rows = [
        (f"budc ({document.search.algorithm})", document.budget.nfe, "policy", list(document.quality.metrics))
    ]
    rows += [(NAMES[b.name], b.nfe, b.name, list(b.metrics)) for b in document.quality.baselines]
    for label, nfe, name, metrics in rows:
        table.add_row(label, str(nfe), *_cells(metrics), f"{taken[name] * 1000:.0f} ms")
    console = Console(width=120)
    console.print()
    console.print(table)
    console.print(
        f"mask      {document.policy.branches[0].step_mask().strip()}", highlight=False, soft_wrap=True
    )
    console.print(f"artifact  {artifact}", highlight=False, soft_wrap=True)
    console.print(f"picture   {picture}", highlight=False, soft_wrap=True)
    console.print(f"report    {report}", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()
