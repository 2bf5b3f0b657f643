"""Fixtures for every folder of tests. Torch is imported only by the fixtures that build models."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from budc.schema import canonical
from budc.schema.keys import KeyPair, PublicKey, Signer, generate_key, load_signer
from budc.schema.mask import StepMask
from budc.schema.policy import (
    AdapterRule,
    Baseline,
    BranchPolicy,
    Budget,
    Denoiser,
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
from budc.schema.trust import Trust

MakeDocument = Callable[..., PolicyDocument]


def _digest(character: str) -> str:
    return f"sha256:{character * 64}"


def _metric(name: str, mean: float) -> Metric:
    return Metric(name=name, mean=mean, standard_error=mean / 10, worst=mean * 4, samples=128)


def _document(
    *,
    steps: int = 6,
    nfe: int = 3,
    branches: Sequence[str] = ("cond", "uncond"),
    mask: StepMask | None = None,
    predictor: Predictor | None = None,
    **fields: Any,
) -> PolicyDocument:
    """Return a valid document: linear sigmas, one mask shared by `branches`; `fields` replace whole parts."""
    mask = StepMask.uniform(steps, nfe) if mask is None else mask
    predictor = Predictor.plain_reuse(mask) if predictor is None else predictor
    steps, nfe = mask.steps, mask.nfe
    sigmas = [1 - index / steps for index in range(steps)] + [0.0]
    config: dict[str, Any] = {"num_train_timesteps": 1000, "shift": 2.5, "solver_type": "bh2", "betas": None}
    document = PolicyDocument(
        schema_version="1.0",
        name="wan-nano-nfe3",
        revision=1,
        issued_at="2026-07-01T12:00:00Z",
        model=ModelBinding(
            profile="wan",
            family="wan",
            pipeline_class="WanPipeline",
            denoisers=[
                Denoiser(
                    name="transformer",
                    class_name="WanTransformer3DModel",
                    tensor_root=_digest("1"),
                    architecture=_digest("2"),
                )
            ],
            variants=[
                Variant(
                    name="original",
                    files={
                        "transformer/diffusion_pytorch_model.safetensors": "a" * 64,
                        "transformer/config.json": "b" * 64,
                        "scheduler/scheduler_config.json": "c" * 64,
                    },
                )
            ],
            adapters=AdapterRule(rule="none"),
        ),
        sampler=SamplerBinding(
            scheduler="FlowMatchEulerDiscreteScheduler",
            config=config,
            config_digest=canonical.digest(config),
            steps=steps,
            sigmas=sigmas,
            timesteps=[1000 * sigma for sigma in sigmas[:-1]],
            guidance=5.0,
            guidance_rule="classifier-free" if len(branches) > 1 else "none",
        ),
        shape=Shape(height=64, width=64, frames=9, dtype="float32", text_tokens=32),
        budget=Budget(requested=str(nfe), nfe=nfe, branches=dict.fromkeys(branches, nfe)),
        policy=Policy(
            payload="trunk-residual",
            branches=[
                BranchPolicy(
                    names=list(branches), mask=list(mask), predictor=[list(row) for row in predictor]
                )
            ],
        ),
        quality=Quality(
            objective="log-latent-mse",
            calibration=PromptSet(digest=_digest("3"), size=24),
            held_out=PromptSet(digest=_digest("4"), size=128),
            metrics=[_metric("latent-mse", 0.00014)],
            baselines=[Baseline(name="euler", nfe=nfe, metrics=[_metric("latent-mse", 0.0012)])],
        ),
        search=Search(
            algorithm="joint-hill-climb",
            seed=0,
            candidates=144,
            forwards=34560,
            settings={"radius": 3, "restarts": None, "tolerance": 1e-05, "paired": True, "loss": "log"},
            versions={"budc": "0.1.0", "torch": "2.13.0"},
        ),
    )
    return msgspec.structs.replace(document, **fields)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the test run's own, so that nothing remembered by the user decides a test."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def make_document() -> MakeDocument:
    """A function that returns a valid PolicyDocument; see `_document` for what can be asked of it."""
    return _document


@pytest.fixture(scope="session")
def key_pair() -> KeyPair:
    """An unencrypted ECDSA P-256 key, as PEM."""
    return generate_key()


@pytest.fixture(scope="session")
def signer(key_pair: KeyPair, tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """The signer of `key_pair`."""
    path = tmp_path_factory.mktemp("keys") / "release.key"
    path.write_bytes(key_pair.private)
    return load_signer(path)


@pytest.fixture(scope="session")
def trust(key_pair: KeyPair) -> Trust:
    """Trust in `key_pair` alone."""
    return Trust((PublicKey.from_pem(key_pair.public),))


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained sibling of the nano models, as `WanPipeline.from_pretrained` loads it."""
    from budc.policies.nano import components
    from budc.policies.nano.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("models") / "wan"
    tokenizer = build_tokenizer()
    components.save_pipeline(
        folder,
        components.build_transformer("wan2.1-nano", seed=0).eval(),
        components.build_vae(seed=0).eval(),
        components.build_text_encoder(tokenizer, seed=0).eval(),
        tokenizer,
    )
    return folder


@pytest.fixture(scope="session")
def exported(wan_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That pipeline as an ONNX export in float32, at the nano profile's shape; takes most of a minute."""
    pytest.importorskip("onnxscript")
    from budc.compiler.export.export import export_onnx
    from budc.policies.profile import load_profile

    folder = tmp_path_factory.mktemp("exports") / "wan-onnx"
    with warnings.catch_warnings():
        # The exporter of torch warns of its own internals.
        warnings.simplefilter("ignore")
        export_onnx(load_profile("wan2.1-nano"), wan_folder, folder, "float32")
    return folder


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three calibration prompts in the nano models' language."""
    path = tmp_path_factory.mktemp("prompts") / "calibration.txt"
    path.write_text(
        "a small red circle moves left over stripes\na big blue box drifts up on checks\na cyan cross orbits\n"
    )
    return path
