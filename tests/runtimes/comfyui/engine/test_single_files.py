"""Single files in another precision than the model was published in: a policy is bound to their own values.

The file becomes a folder of diffusers, by which a policy is transferred or compiled.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from comfyui_models import engine_model
from msgspec.structs import replace
from safetensors.torch import save_file

import budc
from budc.runtimes.comfyui.apply import apply
from budc.schema.digests import tensor_root
from budc.schema.errors import WeightsMismatch


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_cast_file_is_the_model_that_diffusers_reads_from_it(tmp_path: Path, dtype: torch.dtype) -> None:
    import comfy.sd
    from diffusers import WanTransformer3DModel

    pipe: Any = budc.load_pipeline("wan2.1-nano")
    document = budc.embedded_policy("wan2.1-nano", nfe=6).document
    config, path = pipe.transformer.config, tmp_path / "nano-half.safetensors"
    sizes = {
        "num_heads": config.num_attention_heads,
        "freq_dim": config.freq_dim,
        "text_dim": config.text_dim,
    }
    network = engine_model(pipe.transformer).model.diffusion_model
    tensors = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    save_file(tensors, path, {"config": json.dumps({"transformer": sizes})})
    read = WanTransformer3DModel.from_single_file(
        path, config=config._name_or_path, torch_dtype=dtype, local_files_only=True
    )
    read.save_pretrained(tmp_path / "transformer")

    denoiser = document.model.denoisers[0]
    bound = replace(denoiser, tensor_root=tensor_root((tmp_path / "transformer").glob("*.safetensors")))
    model = comfy.sd.load_diffusion_model(str(path))
    apply(model, replace(document, model=replace(document.model, denoisers=[bound])))
    with pytest.raises(WeightsMismatch, match="transformer in this MODEL has tensor root"):
        apply(model, document)
