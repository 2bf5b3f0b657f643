"""A task's denoiser on some of its prompts, in batches that fit the device."""

from __future__ import annotations

from budc.compiler.denoisers.batched import BatchedDenoiser
from budc.compiler.denoisers.conditioning import Conditioning
from budc.compiler.selection.task import Task
from budc.compiler.storage.journal import Journal

CALIBRATION_RUN = "calibration full"
"""What the journal calls the reference run of the calibration prompts."""


def batched(
    task: Task, conditions: Conditioning, journal: Journal, stack: bool | None = False
) -> BatchedDenoiser:
    """Return the denoiser for these prompts; the journal remembers the batch that fitted.

    Only a tree rolls out several candidates at once; elsewhere a batch that is stacked would be padding.
    """
    return BatchedDenoiser(
        task.denoiser,
        conditions,
        journal.get("batch", int, lambda size: size >= 1) or task.batch,
        halved=lambda batch: journal.put("batch", batch),
        stack=stack,
    )
