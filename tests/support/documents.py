"""A policy document that is valid, of which a test changes what it is about."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from budc.schema import canonical
from budc.schema.mask import StepMask
from budc.schema.policy import (
    AdapterRule,
    Baseline,
    Budget,
    DenoiserBinding,
    Metric,
    ModelBinding,
    Policy,
    PolicyDocument,
    PromptSet,
    Quality,
    SamplerBinding,
    Search,
    Shape,
    Variant,
)
from budc.schema.predictor import Predictor

MakeDocument = Callable[..., PolicyDocument]


def _digest(character: str) -> str:
    return f"sha256:{character * 64}"


def _metric(name: str, mean: float) -> Metric:
    return Metric(name=name, mean=mean, standard_error=mean / 10, worst=mean * 4, samples=128)


def _model() -> ModelBinding:
    files = {
        "transformer/diffusion_pytorch_model.safetensors": "a" * 64,
        "transformer/config.json": "b" * 64,
        "scheduler/scheduler_config.json": "c" * 64,
    }
    denoiser = DenoiserBinding(
        name="transformer",
        class_name="WanTransformer3DModel",
        tensor_root=_digest("1"),
        architecture=_digest("2"),
    )
    return ModelBinding(
        profile="wan",
        family="wan",
        pipeline_class="WanPipeline",
        denoisers=[denoiser],
        variants=[Variant(name="original", files=files)],
        adapters=AdapterRule(rule="none"),
    )


def _sampler(steps: int, branches: int) -> SamplerBinding:
    """Linear sigmas."""
    config: dict[str, Any] = {"num_train_timesteps": 1000, "shift": 2.5, "solver_type": "bh2", "betas": None}
    sigmas = [1 - index / steps for index in range(steps)] + [0.0]
    return SamplerBinding(
        scheduler="FlowMatchEulerDiscreteScheduler",
        config=config,
        config_digest=canonical.digest(config),
        steps=steps,
        sigmas=sigmas,
        timesteps=[1000 * sigma for sigma in sigmas[:-1]],
        guidance=5.0,
        guidance_rule="classifier-free" if branches > 1 else "none",
    )


def _quality(nfe: int) -> Quality:
    return Quality(
        objective="log-latent-mse",
        calibration=PromptSet(digest=_digest("3"), size=24),
        held_out=PromptSet(digest=_digest("4"), size=128),
        metrics=[_metric("latent-mse", 0.00014)],
        baselines=[Baseline(name="euler", nfe=nfe, metrics=[_metric("latent-mse", 0.0012)])],
    )


def _search() -> Search:
    return Search(
        algorithm="joint-hill-climb",
        seed=0,
        candidates=144,
        forwards=34560,
        settings={"radius": 3, "restarts": None, "tolerance": 1e-05, "paired": True, "loss": "log"},
        versions={"budc": "0.1.0", "torch": "2.13.0"},
    )


def _document(
    *,
    steps: int = 6,
    nfe: int = 3,
    branches: Sequence[str] = ("cond", "uncond"),
    mask: StepMask | None = None,
    predictor: Predictor | None = None,
    **fields: Any,
) -> PolicyDocument:
    """Return a valid document with one mask, shared by `branches`; `fields` replace whole parts."""
    mask = StepMask.uniform(steps, nfe) if mask is None else mask
    predictor = Predictor.plain_reuse(mask) if predictor is None else predictor
    document = PolicyDocument(
        schema_version="1.0",
        name="wan-nano-nfe3",
        revision=1,
        issued_at="2026-07-01T12:00:00Z",
        model=_model(),
        sampler=_sampler(mask.steps, len(branches)),
        shape=Shape(height=64, width=64, frames=9, dtype="float32", text_tokens=32),
        budget=Budget(requested=str(mask.nfe), nfe=mask.nfe, branches=dict.fromkeys(branches, mask.nfe)),
        policy=Policy.of("trunk-residual", dict.fromkeys(branches, predictor)),
        quality=_quality(mask.nfe),
        search=_search(),
    )
    return msgspec.structs.replace(document, **fields)


@pytest.fixture(scope="session")
def make_document() -> MakeDocument:
    """A function that returns a valid PolicyDocument; see `_document` for what can be asked of it."""
    return _document
