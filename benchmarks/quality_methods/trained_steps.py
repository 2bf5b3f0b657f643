"""Few-step solvers with the best timesteps and coefficients that the compiler's own trainer finds for them."""

from __future__ import annotations

from pathlib import Path

from budc.compiler.comparison.fitted import Fitted
from budc.compiler.comparison.learned_solver import learned_solver
from quality_methods.few_steps import SOLVERS
from quality_methods.setting import Setting


def trained_steps(setting: Setting, nfe: int, solver: str, folder: Path, *, coefficients: bool) -> Fitted:
    """Train the timesteps of a solver of `nfe` steps, and its coefficients if asked for."""
    return learned_solver(setting, nfe, 0, folder, weights=coefficients, solver=SOLVERS[solver](setting))
