"""The fingerprint of a search on tensors: a folder is resumed by the same call on the same network alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.metadata import version
from os import PathLike
from pathlib import Path

from budc.compiler.denoisers.conditioning import named_tensors
from budc.compiler.denoisers.denoiser import Denoiser
from budc.compiler.denoisers.identity import class_name, identity_of, tensor_digest
from budc.compiler.selection.task import Task
from budc.runtimes.sampling.devices import device_name
from budc.runtimes.sampling.scheduler_config import relevant_config
from budc.schema.arguments import path_argument
from budc.schema.canonical import digest
from budc.schema.errors import UsageError


def resumable(
    work: str | PathLike[str] | None,
    task: Task,
    guidance: Mapping[str, float],
    identity: Callable[[], object],
) -> tuple[Path, str] | None:
    """Return the folder of a search's journal and its fingerprint; None where nothing is to be kept.

    `identity` returns what tells the network from others; it may raise, and is asked only where a folder is kept.
    """
    if work is None:
        return None
    folder = path_argument(work, "work", "pass a folder to resume from")
    return folder, fingerprint_of(task, identity(), guidance)


def network_identity(denoiser: Denoiser, weights: str | None, blocks: str) -> object:
    """Return what tells a denoiser from others: what its user says of its weights, or what it shows itself.

    Raises:
        UsageError: it shows nothing, and its user said nothing.
        UnsupportedModel: see `module_identity`.
    """
    if weights is not None:
        return {"class": class_name(denoiser), "weights": weights, "blocks": blocks}
    identity = identity_of(denoiser)
    if identity is None:
        raise UsageError(
            f"work: the weights behind this {type(denoiser).__name__} cannot be read, so that the search of another "
            "network could be resumed",
            remedy="pass weights=, a text that names the network and its weights, such as the sha256 of their file",
        )
    return identity


def fingerprint_of(task: Task, network: object, guidance: Mapping[str, float]) -> str:
    """Return the digest of all that the measurements of a search depend on."""
    scheduler = task.schedule.scheduler
    return digest(
        {
            "network": network,
            "device": device_name(task.denoiser.device),
            "versions": {name: version(name) for name in ("budc", "torch", "diffusers")},
            "batch": task.batch,
            "schedule": [list(task.schedule.sigmas), list(task.schedule.timesteps)],
            "scheduler": [class_name(scheduler), relevant_config(scheduler)],
            "firstSteps": list(task.denoiser.first_steps(task.schedule.timesteps)),
            "budget": task.nfe,
            "search": [
                task.search,
                task.effort,
                task.align,
                task.train,
                task.few_step_schedule is not None,
                task.seed,
            ],
            "noise": tensor_digest(task.conditions.noise),
            "conditioning": {
                branch: {name: tensor_digest(tensor) for name, tensor in named_tensors(condition).items()}
                for branch, condition in task.conditions.embeddings.items()
            },
            "guidance": dict(guidance),
        }
    )
