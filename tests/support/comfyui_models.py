"""Networks of diffusers as MODELs of ComfyUI's engine, with the same weights, and a sampler call as a node makes it."""

from typing import Any

import torch
from torch import Tensor

from budc.runtimes.comfyui.families import ENGINE_FAMILIES
from budc.runtimes.comfyui.weight_names import diffusers_tensors


def engine_model(network: Any, dtype: torch.dtype = torch.float32) -> Any:
    """Return the MODEL (ModelPatcher) with the weights of a transformer of diffusers, kept in `dtype`."""
    import comfy.latent_formats
    import comfy.model_patcher

    kind = type(network).__name__
    config_class, settings = _CONFIGURATIONS[kind](network.config)
    config = config_class(settings)
    config.set_inference_dtype(dtype, None if dtype == torch.float32 else torch.float32)
    model = config.get_model({}, device=torch.device("cpu"))
    # Its own scales latents for a VAE; here they stay as the sampler left them.
    model.latent_format = comfy.latent_formats.LatentFormat()
    model.latent_format.latent_channels = 16
    if kind == "WanTransformer3DModel":
        model.latent_format.temporal_downscale_ratio = 4
    if kind in ("WanTransformer3DModel", "QwenImageTransformer2DModel"):
        model.latent_format.latent_dimensions = 3
    _load(model.diffusion_model, network.state_dict(), kind)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def sample(
    patcher: Any,
    noise: Tensor,
    positive: Any,
    negative: Any,
    cfg: float,
    sampler: Any,
    sigmas: Tensor,
    callback: Any = None,
    **options: Any,
) -> Tensor:
    """Sample as SamplerCustom does; return the final latents."""
    import comfy.samplers

    return comfy.samplers.sample(
        patcher,
        noise,
        positive,
        negative,
        cfg,
        patcher.load_device,
        sampler,
        sigmas,
        patcher.model_options,
        latent_image=options.pop("latent_image", torch.zeros_like(noise)),
        callback=callback,
        disable_pbar=True,
        **options,
    )


def _load(network: Any, weights: dict[str, Tensor], kind: str) -> None:
    """Write weights under diffusers' names into the engine's tensors."""
    rest = dict(weights)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            marked = torch.arange(len(tensor)) if tensor.ndim else tensor
            parts = diffusers_tensors(
                ENGINE_FAMILIES[kind].names, name, marked, getattr(network, "hidden_size", 0)
            )
            for other, rows in parts:
                tensor[rows] = rest.pop(other).to(tensor.dtype)
    assert not rest, sorted(rest)


def _wan(config: Any) -> tuple[Any, dict[str, Any]]:
    from comfy.supported_models import WAN21_I2V, WAN21_T2V

    sees_images = config.image_dim is not None
    return WAN21_I2V if sees_images else WAN21_T2V, {
        "image_model": "wan2.1",
        "model_type": "i2v" if sees_images else "t2v",
        "dim": config.num_attention_heads * config.attention_head_dim,
        "num_heads": config.num_attention_heads,
        "out_dim": config.out_channels,
        "in_dim": config.in_channels,
        **{name: config[name] for name in ("ffn_dim", "freq_dim", "text_dim", "num_layers", "eps")},
    }


def _flux(config: Any) -> tuple[Any, dict[str, Any]]:
    from comfy.supported_models import Flux

    return Flux, {
        "image_model": "flux",
        "in_channels": config.in_channels // 4,
        "out_channels": config.in_channels // 4,
        "vec_in_dim": config.pooled_projection_dim,
        "context_in_dim": config.joint_attention_dim,
        "hidden_size": config.num_attention_heads * config.attention_head_dim,
        "mlp_ratio": 4.0,
        "num_heads": config.num_attention_heads,
        "depth": config.num_layers,
        "depth_single_blocks": config.num_single_layers,
        "axes_dim": list(config.axes_dims_rope),
        "theta": 10000,
        "patch_size": 2,
        "qkv_bias": True,
        "guidance_embed": config.guidance_embeds,
        "txt_ids_dims": [],
    }


def _z_image(config: Any) -> tuple[Any, dict[str, Any]]:
    from comfy.supported_models import ZImage

    return ZImage, {
        "image_model": "lumina2",
        "patch_size": 2,
        "in_channels": config.in_channels,
        "dim": config.dim,
        "n_layers": config.n_layers,
        "n_refiner_layers": config.n_refiner_layers,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "norm_eps": config.norm_eps,
        "qk_norm": config.qk_norm,
        "cap_feat_dim": config.cap_feat_dim,
        "axes_dims": list(config.axes_dims),
        "axes_lens": list(config.axes_lens),
        "rope_theta": config.rope_theta,
        "ffn_dim_multiplier": 8.0 / 3.0,
        "z_image_modulation": True,
        "time_scale": config.t_scale,
        "pad_tokens_multiple": 32,
    }


def _qwen_image(config: Any) -> tuple[Any, dict[str, Any]]:
    from comfy.supported_models import QwenImage

    names = ("in_channels", "out_channels", "num_layers", "attention_head_dim", "num_attention_heads")
    return QwenImage, {
        "image_model": "qwen_image",
        "joint_attention_dim": config.joint_attention_dim,
        "axes_dims_rope": tuple(config.axes_dims_rope),
        **{name: config[name] for name in names},
    }


_CONFIGURATIONS = {
    "WanTransformer3DModel": _wan,
    "FluxTransformer2DModel": _flux,
    "ZImageTransformer2DModel": _z_image,
    "QwenImageTransformer2DModel": _qwen_image,
}
