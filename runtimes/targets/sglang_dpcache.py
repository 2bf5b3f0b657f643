"""SGLang's DPCache: a schedule for `--dpcache-schedule-dir`, see `budc.runtimes.targets.sglang_schedule`.

A file for a server must name things of that server. What the policy does not say, and the user does not either, is null
in the file and reported; SGLang then refuses the file when it starts.
"""

import json
import struct
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from budc.runtimes.targets.deployment import Configuration, Deployment
from budc.runtimes.targets.deployment_target import DeploymentTarget
from budc.runtimes.targets.sglang_schedule import (
    OBJECTIVE,
    SCHEMA,
    Calibration,
    Predictor,
    Request,
    Schedule,
    read_schedule,
)

_USAGE = "a file of the folder of --dpcache-schedule-dir; requests then ask for dpcache_budget"
LEADING = 2
"""The least that the format allows; the forecast needs two computed steps."""


def request_of(deployment: Deployment) -> Request:
    """Return the request that the schedule is for."""
    document, settings = deployment.document, deployment.settings
    sampler, shape = document.sampler, document.pipeline().shape
    return Request(
        pipeline=settings.get("pipeline"),
        checkpoint=settings.get("checkpoint"),
        num_inference_steps=sampler.steps,
        height=shape.height,
        width=shape.width,
        guidance_scale=float(sampler.guidance),
        do_classifier_free_guidance=sampler.guidance_rule == "classifier-free",
        quality=settings.get("quality"),
        attention_backend=settings.get("attention_backend"),
        dtype="bfloat16",
        scheduler=sampler.scheduler,
        scheduler_config_sha256=settings.get("scheduler_config_sha256"),
        timesteps=_float32(sampler.timesteps),
        sigmas=_float32(sampler.sigmas),
    )


def configuration(deployment: Deployment) -> Configuration:
    """Return the schedule as JSON."""
    document = deployment.document
    calibration, full = document.quality.calibration, deployment.mask.compute_steps
    leading = next((index for index, step in enumerate(full) if step != index), len(full))
    schedule = Schedule(
        schema=SCHEMA,
        predictor=Predictor(),
        objective=OBJECTIVE,
        source_commit=f"budc {document.search.versions.get('budc', '')}".strip(),
        request=request_of(deployment),
        mandatory_full_steps=tuple(range(min(leading, LEADING))),
        force_last_full=False,
        max_gap=max(after - before for before, after in pairwise((*full, document.sampler.steps))),
        num_full_steps=len(full),
        full_steps=full,
        calibrated_cost=float(document.quality.metrics[0].mean),
        calibration=Calibration(
            manifest_sha256=calibration.digest.removeprefix("sha256:"), num_samples=calibration.size
        ),
    )
    fields = msgspec.to_builtins(schedule)
    fields["schedule_method"] = f"budc {document.search.algorithm}"
    # Notes for people; the loader lets them pass.
    fields["calibration"] |= {
        "policy": deployment.policy_id,
        "objective": document.quality.objective,
        "calibrated_cost": f"mean {document.quality.metrics[0].name} on held-out prompts",
    }
    text = json.dumps(fields, indent=1) + "\n"
    read_schedule(text.encode())
    return Configuration(text, _USAGE, _unknown(deployment))


def _unknown(deployment: Deployment) -> tuple[str, ...]:
    missing = [name for name in SGLANG_DPCACHE.settings if name not in deployment.settings]
    objective = deployment.document.quality.objective
    return (
        *(f"request.{name}: null, say it with --set {name}=VALUE" for name in missing),
        f"objective: the one name that SGLang reads; the policy was selected by {objective}, and calibrated_cost is "
        f"its mean {deployment.document.quality.metrics[0].name} on held-out prompts",
    )


def _float32(values: Sequence[float]) -> tuple[float, ...]:
    return struct.unpack(f"{len(values)}f", struct.pack(f"{len(values)}f", *values))


SGLANG_DPCACHE = DeploymentTarget(
    name="sglang-dpcache",
    engine="SGLang's DPCache",
    version="schedule-v2",
    payload="trunk-output",
    rule="linear",
    leading=LEADING,
    one_size=True,
    dtypes=("bfloat16",),
    unchecked=(
        "the signature, and whose policy it is",
        "the weights: a snapshot's revision or a path, not their content",
        "prompts, negative prompt and adapters",
    ),
    settings={
        "pipeline": "class of SGLang's pipeline configuration",
        "checkpoint": "revision of the snapshot, or the path, that the server loads",
        "attention_backend": "attention backend of the server",
        "quality": "quality of the request",
        "scheduler_config_sha256": "SGLang's digest of its scheduler's configuration",
    },
    write=configuration,
)
