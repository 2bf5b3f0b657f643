"""What a table is asked to measure: the model, budgets, numbers of prompts, and where measurements are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quality_methods.setting import Setting, folder_of

from budc.compiler.compile import compile_artifacts
from budc.compiler.request import CompileRequest
from budc.policies.model_choice import choose_model
from budc.schema.artifact import SUFFIX, Artifact, read

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options of a call. Numbers that are None are the profile's."""

    model: str
    work: Path
    budgets: tuple[int, ...]
    seeds: tuple[int, ...] = (0,)
    sizes: tuple[int, ...] = ()
    """Numbers of calibration prompts, or of steps, where a table compares several."""
    calibration: int | None = None
    held_out: int | None = None
    effort: str = "thorough"
    to: str = ""
    """The model that policies are transferred to."""
    reference_steps: int | None = None
    against: str = "fewer-steps,uniform"
    metrics: str | None = None
    under: tuple[str, ...] = ()
    repeats: int = 3
    weights: Path | None = None
    device: str | None = None

    @property
    def folder(self) -> Path:
        """Where the measurements of this model and these numbers of prompts are; made if it is not there."""
        sizes = f"{self.calibration or 'all'}-{self.held_out or 'all'}-{self.effort}"
        folder = folder_of(self.work, self.model, self.weights, self.device) / sizes
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def setting(self, calibration: int | None = None, steps: int | None = None) -> Setting:
        """Return the model with so many calibration prompts, and steps of the full run."""
        return Setting(
            self.model,
            self.folder,
            calibration or self.calibration,
            self.held_out,
            weights=self.weights,
            device=self.device,
            steps=steps,
        )

    def compiled(self, nfe: int, label: str, **choices: Any) -> Artifact:
        """Return a policy, compiled with further `choices` of `CompileRequest` unless it is in the folder."""
        name = f"{choose_model(self.model).name}-nfe{nfe}-{label}"
        path = self.folder / f"{name}{SUFFIX}"
        if not path.is_file():
            request: dict[str, Any] = {
                "model": self.model,
                "budget": str(nfe),
                "weights": self.weights,
                "device": self.device,
                "calibration_size": self.calibration,
                "held_out_size": self.held_out,
                "effort": self.effort,
                "no_frames": True,
                "name": name,
                "out": path,
            }
            compile_artifacts(CompileRequest(**(request | choices)).resolve())
        return read(path)
