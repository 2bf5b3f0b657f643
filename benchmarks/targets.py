"""What policies lose in other engines, on the embedded models, and what policies that were made for them are worth.

    python benchmarks/targets.py --json benchmarks/results/targets-cpu.json     # all of docs/targets.md
    python benchmarks/targets.py --targets cache-dit --json out/cache-dit.json  # the rows of one target

Three figures for each target, all geometric means over held-out prompts of the squared error of final latents:
budc's own policy, the same as the engine runs it, and a policy of as many evaluations that was compiled for the target.
The engines' rules run on budc's runtime. diffusers' MagCache also runs itself, and is compared with budc by latents.
Compiles are in `--work` as soon as they are finished, so a killed run goes on where it stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import msgspec
from command_line import COUNT, MODELS, PATH, Names, script

from budc.cli.dependencies import quiet_libraries
from budc.compiler.budget import parse_budget
from budc.compiler.policy_source import make_request
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.runtimes.targets.losses import deployed
from budc.runtimes.targets.registry import TARGETS
from budc.schema.artifact import Artifact, read
from budc.schema.errors import UnsupportedModel

ROOT = Path(__file__).resolve().parents[1]


def compiled(work: Path, model: str, options: dict[str, Any]) -> Artifact:
    """Return a policy of the default search, from an earlier call where there was one."""
    from budc.compiler.compile import compile_artifacts

    name = "-".join(str(value) for value in (model, *options.values()))
    path = work / f"{name}.budc.json"
    if not path.exists():
        flags = {"model": model, "out": path, "no_frames": True, "effort": "fast", **options}
        compile_artifacts(make_request({}, flags).resolve())
    return read(path)


def measure(work: Path, model: str, target: DeploymentTarget, options: dict[str, Any]) -> dict[str, Any]:
    """Return the row of one target."""
    from budc.compiler.evaluation.deployment_error import DeploymentRun, deployment_errors
    from budc.policies.artifact_profile import profile_of

    if target.dtypes:
        options = options | {"dtype": target.dtypes[0]}
    own = compiled(work, model, options)
    row: dict[str, Any] = {"model": model, "target": target.name, "own": error_of(own)}
    try:
        deployment = deployed(target, own.document, own.policy_id, {})
        target.write(msgspec.structs.replace(deployment, suffix=".yaml"))
    except UnsupportedModel as error:
        row |= {"lost": [], "exported": None, "refused": str(error)}
    else:
        run = DeploymentRun(target, deployment, profile_of(own.document), None, options["held_out_size"])
        row["lost"] = [loss.partition(":")[0] for loss in deployment.losses]
        row["exported"] = deployment_errors(run).deployed
    if target.rule != "none":
        made = compiled(work, model, options | {"engine": target.name})
        row["madeFor"] = error_of(made)
        if target.name == "diffusers-magcache":
            row["engineDiffers"] = magcache_differs(model, target, made)
    return row


def error_of(artifact: Artifact) -> float:
    """Return the error of a policy's report."""
    return float(artifact.document.quality.metrics[0].geometric_mean or 0.0)


def magcache_differs(model: str, target: DeploymentTarget, artifact: Artifact) -> float:
    """Return by how much final latents of MagCache itself and budc differ at most, as a share of the largest."""
    import warnings

    import torch
    from diffusers import MagCacheConfig

    import budc
    from budc.policies.profile import load_profile

    profile, pipe = load_profile(model), budc.load_pipeline(model)
    deployment = deployed(target, artifact.document, artifact.policy_id, {})
    plain = msgspec.structs.replace(artifact.document, target=None)

    def latents() -> torch.Tensor:
        settings = {} if profile.frames == 1 else {"num_frames": profile.frames}
        final: torch.Tensor = pipe(
            "a large crimson circle at the left over stripes",
            num_inference_steps=plain.sampler.steps,
            guidance_scale=plain.sampler.guidance,
            height=profile.height,
            width=profile.width,
            generator=torch.Generator().manual_seed(0),
            max_sequence_length=profile.text_tokens or 512,
            output_type="latent",
            **settings,
        )[0]
        return final

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with budc.applied(pipe, plain, allow_unsigned=True):
            expected = latents()
    pipe.transformer.enable_cache(MagCacheConfig(**json.loads(target.write(deployment).text)))
    return float((latents() - expected).abs().max() / expected.abs().max())


@script(__doc__)
@click.option("--models", type=MODELS, default="flux-nano,wan2.1-nano", show_default=True)
@click.option("--targets", "names", type=Names(TARGETS), default=",".join(TARGETS), show_default=True)
@click.option("--steps", type=click.IntRange(1, 1000), default=12, show_default=True)
@click.option("--budget", default="5", show_default=True)
@click.option("--held-out", type=COUNT, default=32, show_default=True, help="held-out prompts")
@click.option("--work", type=PATH, default=ROOT / "out" / "targets", show_default=True)
@click.option("--json", "path", type=PATH, required=True, help="where the rows go")
def main(
    models: tuple[str, ...],
    names: tuple[str, ...],
    steps: int,
    budget: str,
    held_out: int,
    work: Path,
    path: Path,
) -> None:
    """Measure."""
    quiet_libraries()
    parse_budget(budget, steps)
    targets = [TARGETS[name] for name in names]
    for folder in (work, path.parent):
        folder.mkdir(parents=True, exist_ok=True)
    options = {"steps": steps, "budget": budget, "held_out_size": held_out}
    rows = []
    for model in models:
        for target in targets:
            try:
                rows.append(measure(work, model, target, options))
            except UnsupportedModel as error:
                # The target does not run this model.
                rows.append({"model": model, "target": target.name, "refused": str(error)})
            print(json.dumps(rows[-1]), flush=True)
            head = {"steps": steps, "budget": budget, "heldOut": held_out}
            path.write_text(json.dumps({**head, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
