"""Folders of small untrained pipelines, as the libraries save them. Torch is imported only where they are built."""

import gc
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from budc.policies.profile import ModelProfile, load_profile
from budc.runtimes.testing import STEPS
from budc.schema.policy import PolicyDocument, Shape

EXPORT_SHAPE = Shape(height=64, width=64, frames=5, dtype="float32", text_tokens=32)
"""What the export is for: two frames of latents, so that the VAE carries something from one to the next."""


def export_profile() -> ModelProfile:
    """Return the nano profile at that shape."""
    return replace(load_profile("wan2.1-nano"), frames=EXPORT_SHAPE.frames)


@pytest.fixture(scope="session")
def frozen_libraries() -> Iterator[None]:
    """Let the garbage collector pass over the libraries' own objects: a compile calls it after each of its parts."""
    import budc.compiler.compile
    import budc.compiler.transfer  # noqa: F401

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def plainest_vae() -> Any:
    """Return an untrained video VAE like that of the nano models, without what takes long to export."""
    from budc.policies.nano.architectures import wan as components

    vae = components.build_vae(seed=0)
    plain = {"num_res_blocks": 0, "is_residual": False, "dim_mult": [1] * 3}
    return type(vae).from_config({**vae.config, **plain}).eval()


@pytest.fixture(scope="session")
def wan_folder(frozen_libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained sibling of the nano models, as `WanPipeline.from_pretrained` loads it.

    It has half their layers, and the plainest VAE: most of a forward, and of an export, is paid by the layer.
    """
    from budc.policies.nano.architectures import wan as components
    from budc.policies.nano.text.tokenizer import build_tokenizer

    folder = tmp_path_factory.mktemp("models") / "wan"
    tokenizer = build_tokenizer()
    transformer = components.build_transformer("wan2.1-nano", seed=0)
    encoder = components.build_text_encoder(tokenizer, seed=0)
    encoder.config.num_layers //= 2
    components.save_pipeline(
        folder,
        type(transformer).from_config({**transformer.config, "num_layers": 2}).eval(),
        plainest_vae(),
        type(encoder)(encoder.config).eval(),
        tokenizer,
    )
    return folder


@pytest.fixture(scope="session")
def pair_folder(frozen_libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a `WanPipeline` with two small untrained denoisers, as Wan2.2 has them."""
    import torch
    from diffusers import WanPipeline, WanTransformer3DModel

    from budc.policies.nano.architectures import wan as components
    from budc.policies.nano.text.tokenizer import build_tokenizer

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
        plainest_vae(),
        components.build_scheduler(),
        denoiser(0),
        denoiser(1),
        boundary_ratio=0.875,
    )
    folder = tmp_path_factory.mktemp("models") / "pair"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def image_to_video_folder(wan_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a tiny untrained `WanImageToVideoPipeline`: text encoder and VAE of `wan_folder`, a CLIP that sees 8 × 8
    pixels, and channels for a first frame.
    """
    import torch
    from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModel

    text_to_video = WanPipeline.from_pretrained(wan_folder)
    text_to_video.vae.register_to_config(latents_mean=[0.25] * 16, latents_std=[1.5] * 16)
    side = {"height": 8, "width": 8}
    torch.manual_seed(0)
    pipe = WanImageToVideoPipeline(
        **{name: getattr(text_to_video, name) for name in ("tokenizer", "text_encoder", "vae", "scheduler")},
        image_processor=CLIPImageProcessor(size={"shortest_edge": 8}, crop_size=side),
        image_encoder=CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=8,
                patch_size=4,
            )
        ).eval(),
        transformer=WanTransformer3DModel(
            num_attention_heads=2, attention_head_dim=16, text_dim=96, freq_dim=16, ffn_dim=32, num_layers=2,
            rope_max_seq_len=32, in_channels=36, image_dim=16, added_kv_proj_dim=32,
        ).eval(),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "image-to-video"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported(wan_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That pipeline as an ONNX export in float32, for `EXPORT_SHAPE`.

    It takes most of a minute, so the processes of a test run share one.
    """
    pytest.importorskip("onnxscript")
    from filelock import FileLock

    from budc.compiler.export.onnx import export_onnx

    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "wan-onnx"
    with FileLock(shared / "wan-onnx.lock"), warnings.catch_warnings():
        # The exporter of torch warns of its own internals.
        warnings.simplefilter("ignore")
        # The folder appears when it is complete.
        if not folder.exists():
            export_onnx(export_profile(), wan_folder, folder, "float32")
    return folder


@pytest.fixture(scope="session")
def untrained(wan_folder: Path, make_document: Any) -> PolicyDocument:
    """A document for the untrained pipeline of `wan_folder`."""
    import torch

    from budc.compiler.models.binding import model_binding
    from budc.compiler.models.model import load_model

    profile = load_profile("wan2.1-nano")
    return make_document(
        steps=STEPS,
        model=model_binding(profile, wan_folder),
        sampler=load_model(profile, wan_folder, torch.device("cpu")).sampler(STEPS),
        shape=EXPORT_SHAPE,
    )


@pytest.fixture(scope="session")
def untrained_export(untrained: PolicyDocument, exported: Path) -> PolicyDocument:
    """The document with the export among its variants, as `budc bind` adds it."""
    from budc.runtimes.exported.folder import describe_export

    variant, _ = describe_export(exported)
    model = replace(untrained.model, variants=[*untrained.model.variants, variant])
    return replace(untrained, model=model)


@pytest.fixture(scope="session")
def flux_folder(frozen_libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture(scope="session")
def z_image_folder(frozen_libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained, tiny Z-Image: Qwen3 with a chat template, letters for tokens."""
    import diffusers
    import torch
    from transformers import Qwen2Tokenizer, Qwen3Config, Qwen3Model

    letters = ["Ġ", *"abcdefghijklmnopqrstuvwxyz", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]
    tokenizer = Qwen2Tokenizer(vocab={letter: index for index, letter in enumerate(letters)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}<|im_start|>"
    )
    torch.manual_seed(0)
    transformer = diffusers.ZImageTransformer2DModel(
        n_layers=2, n_refiner_layers=1, dim=32, n_heads=2, n_kv_heads=2, cap_feat_dim=16, in_channels=4,
        axes_dims=[4, 6, 6], axes_lens=[128, 64, 64],
    )  # fmt: skip
    for parameter in transformer.parameters():
        torch.nn.init.normal_(parameter, float(parameter.ndim == 1), 0.1)
    pipe = diffusers.ZImagePipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        diffusers.AutoencoderKL(
            block_out_channels=(4, 8), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=2, layers_per_block=1,
            use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.36, shift_factor=0.12,
        ),
        Qwen3Model(
            Qwen3Config(
                vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                num_attention_heads=2, num_key_value_heads=1, head_dim=8, max_position_embeddings=512,
            )
        ),
        tokenizer,
        transformer,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "z-image"
    pipe.save_pretrained(folder)
    return folder


_QWEN_IMAGE_WORDS = [
    "a",
    "red",
    "blue",
    "green",
    "box",
    "ring",
    "leaf",
    "boat",
    "house",
    "two",
    "small",
    "tall",
    "old",
]


@pytest.fixture(scope="session")
def qwen_image_folder(frozen_libraries: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained, tiny Qwen-Image; its tokens are words."""
    import diffusers
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    words = {word: index for index, word in enumerate(["<pad>", "<unk>", *_QWEN_IMAGE_WORDS])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    text = {
        "vocab_size": len(words), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256,
        "rope_parameters": {"rope_theta": 1e6, "rope_type": "default", "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16,
        "fullatt_block_indexes": [0],
    }  # fmt: skip
    torch.manual_seed(0)
    pipe = diffusers.QwenImagePipeline(
        diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift=1.0),
        diffusers.AutoencoderKLQwenImage(
            base_dim=8, z_dim=4, dim_mult=[1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True],
            latents_mean=[0.1] * 4, latents_std=[1.5] * 4,
        ),
        Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision)),
        PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", padding_side="right"
        ),
        diffusers.QwenImageTransformer2DModel(
            num_layers=2, num_attention_heads=2, attention_head_dim=16, joint_attention_dim=16, in_channels=16,
            out_channels=4, axes_dims_rope=(4, 6, 6),
        ),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "qwen-image"
    pipe.save_pretrained(folder)
    return folder
