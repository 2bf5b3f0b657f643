"""Fixtures for every folder of tests. Torch is imported only by the fixtures that build models."""

import importlib.util
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
GUIDES = "tests/docs/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the guides, which take longest: begun last, they would leave all other processes idle."""
    items.sort(key=lambda item: not item.nodeid.startswith(GUIDES))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Share out files, as their tests share what is expensive to set up, and guides one by one."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):  # type: ignore[misc,no-any-unimported]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(GUIDES) else str(super()._split_scope(nodeid))

    return Scheduling(config, log)


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
    denoiser = Denoiser(
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
    rows = [list(row) for row in predictor]
    document = PolicyDocument(
        schema_version="1.0",
        name="wan-nano-nfe3",
        revision=1,
        issued_at="2026-07-01T12:00:00Z",
        model=_model(),
        sampler=_sampler(mask.steps, len(branches)),
        shape=Shape(height=64, width=64, frames=9, dtype="float32", text_tokens=32),
        budget=Budget(requested=str(mask.nfe), nfe=mask.nfe, branches=dict.fromkeys(branches, mask.nfe)),
        policy=Policy(
            payload="trunk-residual",
            branches=[BranchPolicy(names=list(branches), mask=list(mask), predictor=rows)],
        ),
        quality=_quality(mask.nfe),
        search=_search(),
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
def pair_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a `WanPipeline` with two small untrained denoisers, as Wan2.2 has them."""
    import torch
    from diffusers import WanPipeline, WanTransformer3DModel

    from budc.policies.nano import components
    from budc.policies.nano.tokenizer import build_tokenizer

    def denoiser(seed: int) -> WanTransformer3DModel:
        torch.manual_seed(seed)
        return WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, text_dim=components.TEXT_WIDTH, freq_dim=16, ffn_dim=32,
            num_layers=2, rope_max_seq_len=32,
        ).eval()  # fmt: skip

    tokenizer = build_tokenizer()
    pipe = WanPipeline(
        tokenizer,
        components.build_text_encoder(tokenizer, seed=0).eval(),
        components.build_vae(seed=0).eval(),
        components.build_scheduler(),
        denoiser(0),
        denoiser(1),
        boundary_ratio=0.875,
    )
    folder = tmp_path_factory.mktemp("models") / "pair"
    pipe.save_pretrained(folder)
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
def killing() -> Any:
    """The module `killing.py`, which runs work in processes that are killed."""
    spec = importlib.util.spec_from_file_location("budc_killing", Path(__file__).with_name("killing.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cuda() -> Any:
    """The CUDA device; what needs one and finds none is skipped."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def prompt_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three calibration prompts in the nano models' language."""
    path = tmp_path_factory.mktemp("prompts") / "calibration.txt"
    path.write_text(
        "a small red circle moves left over stripes\na big blue box drifts up on checks\na cyan cross orbits\n"
    )
    return path


@pytest.fixture(scope="session")
def flux_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained, tiny FLUX: packed latents, dynamic shift, CLIP and T5, guidance as an input."""
    import torch
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    from transformers import (
        CLIPTextConfig,
        CLIPTextModel,
        CLIPTokenizer,
        T5Config,
        T5EncoderModel,
        T5Tokenizer,
    )

    letters = "abcdefghijklmnopqrstuvwxyz"
    clip_words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    clip_tokenizer = CLIPTokenizer(
        vocab={word: index for index, word in enumerate(clip_words)}, merges=[], model_max_length=16
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    t5_tokenizer = T5Tokenizer(vocab=[*pieces, *((letter, -3.0) for letter in letters)], extra_ids=0)
    torch.manual_seed(0)
    pipe = FluxPipeline(
        FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=3.0),
        AutoencoderKL(
            block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=2, layers_per_block=1,
            use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.36, shift_factor=0.12,
        ),
        CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(clip_words), hidden_size=8, intermediate_size=16, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=16, projection_dim=8,
                bos_token_id=len(clip_words) - 2, eos_token_id=len(clip_words) - 1,
            )
        ),
        clip_tokenizer,
        T5EncoderModel(
            T5Config(
                vocab_size=len(pieces) + len(letters), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
                dropout_rate=0.0,
            )
        ),
        t5_tokenizer,
        FluxTransformer2DModel(
            in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
            joint_attention_dim=16, pooled_projection_dim=8, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "flux"
    pipe.save_pretrained(folder)
    return folder


TinyProfile = Callable[[str, str, dict[str, str]], str]


@pytest.fixture
def tiny_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TinyProfile:
    """A function (name, of, lines) that puts a small edition of a profile among the shipped ones for the length of a
    test, without its architecture, and returns its name; `lines` are the lines that change, old to new.
    """
    import shutil

    from budc.policies import profile

    shelf = tmp_path / "profiles"
    shutil.copytree(profile._HERE, shelf, ignore=shutil.ignore_patterns("nano", "*.py", "__pycache__"))
    (shelf / "calibration.txt").write_text("a red box\na blue ring\ntwo small stars\na tall house\n")
    (shelf / "held-out.txt").write_text("a green leaf\nan old boat\n")
    monkeypatch.setattr(profile, "_HERE", shelf)

    def add(name: str, of: str, lines: dict[str, str]) -> str:
        text = (shelf / f"{of}.toml").read_text()
        for old, new in {
            f'name = "{of}"': f'name = "{name}"',
            "bfloat16": "float32",
            "calibration_size = 24": "calibration_size = 4",
            **lines,
        }.items():
            assert old in text
            text = text.replace(old, new)
        head, tail = text.split("[architecture.transformer]")
        (shelf / f"{name}.toml").write_text(head + tail[tail.index("[prompts]") :])
        return name

    return add


@pytest.fixture
def flux_profile(tiny_profile: TinyProfile, flux_folder: Path) -> str:
    """The name of a profile for `flux_folder`."""
    changed = {
        "steps = 28": "steps = 6",
        "height = 1024": "height = 32",
        "width = 1024": "width = 48",
        "text_tokens = 512": "text_tokens = 8",
        "prompts/image-": "",
        "held_out_size = 32": "held_out_size = 2",
    }
    return tiny_profile("flux-tiny", "flux.1-dev", changed)


@pytest.fixture
def pair_profile(tiny_profile: TinyProfile) -> str:
    """The name of a profile for `pair_folder`: of six steps, the last three are the second denoiser's."""
    changed = {
        "steps = 40": "steps = 6",
        "height = 480": "height = 32",
        "width = 832": "width = 48",
        "frames = 81": "frames = 5",
        "text_tokens = 512": "text_tokens = 8",
        "prompts/video-": "",
        "held_out_size = 24": "held_out_size = 2",
    }
    return tiny_profile("pair-tiny", "wan2.2", changed)
