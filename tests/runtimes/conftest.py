"""Tiny random pipelines of the two families, and policies made for them."""

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec
import pytest

torch = pytest.importorskip("torch")

from budc.runtimes.admission.trust import UnsignedWarning  # noqa: E402
from budc.runtimes.diffusers.apply import AppliedPolicy, apply  # noqa: E402
from budc.runtimes.diffusers.weights import memory_architecture, memory_root  # noqa: E402
from budc.runtimes.sampling.families import family_of  # noqa: E402
from budc.runtimes.sampling.schedulers import sampler_binding  # noqa: E402
from budc.schema.policy import (  # noqa: E402
    AdapterRule,
    BranchPolicy,
    Budget,
    DenoiserBinding,
    Expert,
    ModelBinding,
    Policy,
    PolicyDocument,
    PromptSet,
    Quality,
    Search,
    Shape,
    Variant,
)

STEPS = 6
MASK = (True, False, True, True, False, False)
PREDICTOR = ((), (1.0,), (), (), (1.5, -0.5), (1.25, -0.5, 0.25))
WAN = {"height": 16, "width": 32, "num_frames": 5}
FLUX = {"height": 32, "width": 48}
ZERO = "sha256:" + "0" * 64


def _wan() -> Any:
    from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
    from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2,
        rope_max_seq_len=32,
    ).eval()  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    ).eval()
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁a", -1.0), ("▁red", -1.0)]
    tokenizer = T5Tokenizer(
        vocab=[*pieces, *((letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz")], extra_ids=0
    )
    encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, dropout_rate=0.0)
    ).eval()
    scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, num_train_timesteps=1000
    )
    pipe = WanPipeline(tokenizer, encoder, vae, scheduler, transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _flux() -> Any:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=8, guidance_embeds=True, axes_dims_rope=(4, 6, 6),
    ).eval()  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=2, layers_per_block=1,
        use_quant_conv=False, use_post_quant_conv=False,
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    pipe = FluxPipeline(scheduler, vae, None, None, None, None, transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def built() -> dict[str, Any]:
    """The two pipelines, built once; tests get copies."""
    return {"wan": _wan(), "flux": _flux()}


@pytest.fixture
def wan(built: dict[str, Any]) -> Any:
    """A fresh Wan pipeline (UniPC, two guidance branches)."""
    return copy.deepcopy(built["wan"])


@pytest.fixture
def flux(built: dict[str, Any]) -> Any:
    """A fresh FLUX pipeline (flow-matching Euler with dynamic shift, one branch)."""
    return copy.deepcopy(built["flux"])


@pytest.fixture(params=["wan", "flux"])
def pipe(request: pytest.FixtureRequest) -> Any:
    """Either of them in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def apply_quietly() -> Callable[..., AppliedPolicy]:
    """`apply` without the warning that a bare document is not signed."""

    def quietly(pipe: Any, document: PolicyDocument, **options: Any) -> AppliedPolicy:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnsignedWarning)
            return apply(pipe, document, allow_unsigned=True, **options)

    return quietly


@pytest.fixture
def applied_quietly(
    apply_quietly: Callable[..., AppliedPolicy],
) -> Callable[..., AbstractContextManager[AppliedPolicy]]:
    """`apply_quietly` for the length of a with-block."""

    @contextlib.contextmanager
    def context(pipe: Any, document: PolicyDocument, **options: Any) -> Iterator[AppliedPolicy]:
        applied_policy = apply_quietly(pipe, document, **options)
        try:
            yield applied_policy
        finally:
            applied_policy.remove()

    return context


@pytest.fixture
def run() -> Callable[..., Any]:
    """Call a pipeline as a user would and return the final latents."""

    def call(pipe: Any, seed: int = 0, batch: int = 1, **options: Any) -> Any:
        generator = torch.Generator().manual_seed(seed)
        settings: dict[str, Any] = {
            "num_inference_steps": STEPS,
            "output_type": "latent",
            "generator": generator,
        }
        if type(pipe).__name__.startswith("Flux"):
            text = torch.Generator().manual_seed(1)
            settings |= FLUX | {"guidance_scale": 3.5}
            settings["prompt_embeds"] = torch.randn(batch, 5, 16, generator=text)
            settings["pooled_prompt_embeds"] = torch.randn(batch, 8, generator=text)
        else:
            settings |= WAN | {"guidance_scale": 5.0, "max_sequence_length": 8}
            settings |= {"prompt": ["a red a", "red"][:batch], "negative_prompt": [""] * batch}
        return pipe(**(settings | options))[0]

    return call


@pytest.fixture
def compiled_for() -> Callable[..., PolicyDocument]:
    """Make a policy document for a pipeline as it is."""
    return document_for


def document_for(
    pipe: Any,
    mask: Sequence[bool] = MASK,
    predictor: Sequence[Sequence[float]] = PREDICTOR,
    *,
    payload: str = "trunk-residual",
    branches: Sequence[BranchPolicy] | None = None,
    files: dict[str, str] | None = None,
    adapters: str = "none",
    sigmas: Sequence[float] | None = None,
    text_tokens: int | None = None,
    experts: Sequence[Expert] = (),
) -> PolicyDocument:
    is_wan = type(pipe.transformer).__name__.startswith("Wan")
    rule: Any = "classifier-free" if is_wan else "distilled"
    names = ["cond", "uncond"] if is_wan else ["cond"]
    size = WAN if is_wan else FLUX
    if branches is None:
        branches = [BranchPolicy.of(names, predictor)]
    family = family_of(pipe.transformer)
    return PolicyDocument(
        schema_version="1.0",
        name="tiny",
        revision=1,
        issued_at="2026-01-01T00:00:00Z",
        model=ModelBinding(
            profile="tiny",
            family=family.name,
            pipeline_class=type(pipe).__name__,
            denoisers=[
                DenoiserBinding(
                    name=name,
                    class_name=type(getattr(pipe, name)).__name__,
                    tensor_root=memory_root(getattr(pipe, name)),
                    architecture=memory_architecture(getattr(pipe, name)),
                )
                for name in ["transformer", *(expert.denoiser for expert in experts)]
            ],
            variants=[Variant(name="original", files=files or {"transformer/config.json": "0" * 64})],
            adapters=AdapterRule(rule=adapters),  # type: ignore[arg-type]
        ),
        sampler=msgspec.structs.replace(
            sampler_binding(
                pipe.scheduler,
                len(mask),
                5.0 if is_wan else 3.5,
                family=family,
                guidance_rule=rule,
                image_tokens=8 * 12,
                sigmas=sigmas,
            ),
            experts=list(experts),
        ),
        shape=Shape(
            height=size["height"],
            width=size["width"],
            frames=size.get("num_frames", 1),
            dtype="float32",
            text_tokens=text_tokens,
        ),
        budget=Budget(
            requested=str(sum(mask)),
            nfe=max(sum(branch.mask) for branch in branches),
            branches={name: sum(branch.mask) for branch in branches for name in branch.names},
        ),
        policy=Policy(payload=payload, branches=branches),  # type: ignore[arg-type]
        quality=Quality(
            objective="latent-mse",
            calibration=PromptSet(digest=ZERO, size=1),
            held_out=PromptSet(digest="sha256:" + "1" * 64, size=1),
            metrics=[],
            baselines=[],
        ),
        search=Search(algorithm="none", seed=0, candidates=0, forwards=0, settings={}, versions={}),
    )
