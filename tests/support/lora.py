"""Small random adapters (LoRA) as files, for the transformers of the tests."""

from pathlib import Path
from typing import Any


def write_lora(path: Path, transformer: Any, *, seed: int = 0, rank: int = 2, modules: str = "to_q") -> Path:
    """Write an adapter of all linear layers of that name, as diffusers saves it; return its path."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in transformer.named_modules():
        if name.rpartition(".")[2] == modules and isinstance(module, torch.nn.Linear):
            shapes = {"lora_A": (rank, module.in_features), "lora_B": (module.out_features, rank)}
            for key, shape in shapes.items():
                tensors[f"transformer.{name}.{key}.weight"] = torch.randn(shape, generator=generator)
    assert tensors, f"no layer is named {modules}"
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    return path
