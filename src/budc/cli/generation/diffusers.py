"""`budc run` with diffusers: the policy alone, or between the full run and a run of fewer steps."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from budc.cli.dependencies import model_libraries
from budc.cli.generation.request import FULL_RUN, Finished
from budc.cli.generation.stages import shown_stages, stage
from budc.cli.output.verdict import speed_up
from budc.schema.errors import WeightsMismatch, WeightsMissing
from budc.schema.printable import printable

if TYPE_CHECKING:
    from pathlib import Path

    from budc.cli.generation.methods import Method
    from budc.cli.generation.request import GenerationRequest

_REMEDY = "use --device cpu, or in Python budc.apply on a pipeline with enable_model_cpu_offload()"


def run_diffusers(request: GenerationRequest, *, compare: bool) -> Finished:
    """Generate, write the file and return what to print.

    Raises:
        BudcError: the model is another one, the pipeline cannot be loaded or refuses the policy, or the file cannot
            be written.
    """
    if request.device is not None:
        _check_device(request.device)
    with shown_stages():
        stage("verify", f"the files of {request.weights}")
        _check_files(request)
        stage("load", request.profile.title)
        with model_libraries(), _without_runtime_warnings():
            methods, out = _generate(request, compare)
    return Finished(_page(request, methods, out), _speed(request, methods))


def _check_device(name: str) -> None:
    with model_libraries():
        from budc.runtimes.sampling.devices import find_device

        find_device(name)


def _check_files(request: GenerationRequest) -> None:
    """Check the model's files before a library opens one; `apply` checks what was loaded from them."""
    from budc.runtimes.sampling.network_config import library_defaults
    from budc.schema.model_files import accepted_files

    try:
        accepted_files(request.weights, request.document.model, request.digests, library_defaults)
    except (WeightsMissing, WeightsMismatch):
        if not request.allow_uncalibrated:
            raise


def _generate(request: GenerationRequest, compare: bool) -> tuple[list[Method], Path]:
    from budc.cli.generation.comparison import run_methods
    from budc.cli.generation.methods import methods, pictures
    from budc.runtimes.diffusers.pipeline import load_pipeline
    from budc.runtimes.sampling.device_memory import device_memory

    chosen = methods(request.document, compare=compare)
    with device_memory("the pipeline", _REMEDY):
        pipe = load_pipeline(request.profile, weights=request.weights, device=request.device)
        if request.adapters:
            from budc.runtimes.sampling.adapters import load_adapters

            load_adapters(pipe, request.adapters, [other.name for other in request.document.model.denoisers])
        differences = run_methods(pipe, request, chosen)
    for difference in differences:
        click.echo(f"uncalibrated: {printable(difference)}", err=True)
    return chosen, request.write(pictures(chosen, request.prompts))


def _page(request: GenerationRequest, methods: Sequence[Method], out: Path) -> str:
    wrote = f"wrote {printable(str(out))}, seed {request.seed}"
    if len(methods) > 1:
        from budc.cli.generation.methods import comparison_table

        return f"{comparison_table(methods)}\n{wrote}; figures are means over the prompts"
    document = request.document
    return f"{wrote}, {document.budget.nfe} NFE of {document.sampler.steps} steps, {methods[0].seconds:.2f} s each"


def _speed(request: GenerationRequest, methods: Sequence[Method]) -> str:
    """Return how the policy's loop compares with the full run's, where both ran."""
    from budc.runtimes.sampling.devices import device_name, find_device

    full = next((method for method in methods if method.name == FULL_RUN), None)
    policy = next(method for method in methods if method.policy)
    if full is None:
        return ""
    return speed_up(full.seconds, policy.seconds, device_name(find_device(request.device)))


@contextlib.contextmanager
def _without_runtime_warnings() -> Iterator[None]:
    """Silence the runtime's warnings of what this command says itself."""
    from budc.runtimes.admission.settings import UncalibratedWarning
    from budc.runtimes.admission.trust import UnsignedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UncalibratedWarning)
        warnings.simplefilter("ignore", UnsignedWarning)
        yield
