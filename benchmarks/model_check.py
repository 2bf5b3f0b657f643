"""What the check of the model at the beginning of each run costs, against one forward, on FLUX and Wan architectures.

    python benchmarks/model_check.py --json results.json

All layers at their real widths, with random weights. Tensors of one shape share their memory, so that the models fit
into little of it; the forward's work and the number of tensors that are checked are those of the real models. Outputs
are small unless --cells says otherwise (64 text tokens, an image of 64 x 64 pixels, one such frame of video): a forward
of the usual size takes longer, so the ratio is an upper bound on this device. An accelerator is faster with a small
forward than the host is with asking for it; take the usual size there: --cells 64 is an image of 1024 x 1024.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import timing
import torch
from command_line import COUNT, PATH, Names, script
from diffusers import FluxTransformer2DModel, WanTransformer3DModel
from saving import device_name, save_rows
from torch import nn

from budc.runtimes.diffusers.model_record import ModelRecord
from budc.runtimes.diffusers.own_layers import ModuleTree, OwnLayers
from budc.runtimes.sampling.devices import find_device

TEXT = 64
"""Tokens of the text."""


def flux(heads: int) -> nn.Module:
    """Return FLUX.1-dev's transformer, which has 24 attention heads."""
    network: nn.Module = FluxTransformer2DModel(
        in_channels=64, num_layers=19, num_single_layers=38, attention_head_dim=128,
        num_attention_heads=heads, joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )  # fmt: skip
    return network


def wan(heads: int) -> nn.Module:
    """Return Wan2.1-T2V-1.3B's transformer, which has 12 attention heads."""
    network: nn.Module = WanTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096,
        freq_dim=256, ffn_dim=8960 * heads // 12, num_layers=30, cross_attn_norm=True,
        qk_norm="rms_norm_across_heads",
    )  # fmt: skip
    return network


def flux_inputs(side: int) -> dict[str, Any]:
    """Return the inputs of one forward of FLUX, for an image of so many tokens a side."""
    cells = torch.arange(side, dtype=torch.float32)
    return {
        "hidden_states": torch.randn(1, side * side, 64),
        "encoder_hidden_states": torch.randn(1, TEXT, 4096),
        "pooled_projections": torch.randn(1, 768),
        "timestep": torch.full((1,), 0.5),
        "guidance": torch.full((1,), 3.5),
        "img_ids": torch.cartesian_prod(torch.zeros(1), cells, cells),
        "txt_ids": torch.zeros(TEXT, 3),
    }


def wan_inputs(side: int) -> dict[str, Any]:
    """Return the inputs of one forward of Wan, for a frame of so many tokens a side."""
    return {
        "hidden_states": torch.randn(1, 16, 1, 2 * side, 2 * side),
        "encoder_hidden_states": torch.randn(1, TEXT, 4096),
        "timestep": torch.full((1,), 500.0),
    }


MODELS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], dict[str, Any]], int]] = {
    "FLUX.1-dev": (flux, flux_inputs, 24),
    "Wan2.1-T2V-1.3B": (wan, wan_inputs, 12),
}
"""Name -> model by its attention heads, inputs, and the real number of heads."""


def in_little_memory(build: Callable[[], nn.Module], device: torch.device) -> nn.Module:
    """Return a model with random float32 weights, in which tensors of one shape have the same values in one memory."""
    with torch.device("meta"):
        model = build().eval()
    values: dict[torch.Size, torch.Tensor] = {}
    for module in model.modules():
        held: Any
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    if tensor.shape not in values:
                        values[tensor.shape] = 0.02 * torch.randn(tensor.shape, device=device)
                    is_parameter = isinstance(tensor, nn.Parameter)
                    shared = values[tensor.shape]
                    held[name] = nn.Parameter(shared, False) if is_parameter else shared
    return model


def check_seconds(model: nn.Module, repeats: int) -> float:
    """Time the whole check: what the layers are now, and the comparison with the record."""
    record, tree = ModelRecord(OwnLayers(model)), ModuleTree(model)

    def check() -> None:
        assert record.change(OwnLayers(model, tree), adapters_allowed=False) is None

    return timing.seconds(check, repeats)


def measure(name: str, heads: int | None, cells: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Time one forward of a model, and the check."""
    build, inputs, own_heads = MODELS[name]
    model = in_little_memory(partial(build, heads or own_heads), device)
    given = {key: tensor.to(device) for key, tensor in inputs(cells).items()}
    with torch.no_grad():
        forward = timing.seconds(lambda: model(**given, return_dict=False), repeats)
    check = check_seconds(model, 20 * repeats)
    return {
        "model": name,
        "parameters": sum(tensor.numel() for tensor in model.parameters()),
        "tensors": len(OwnLayers(model).tensors),
        "forwardSeconds": forward,
        "checkSeconds": check,
        "ratio": check / forward,
    }


@script(__doc__)
@click.option("--models", type=Names(MODELS), default=",".join(MODELS), show_default=True)
@click.option("--heads", type=COUNT, help="attention heads, if not the model's: fewer make it narrow")
@click.option("--cells", type=COUNT, default=4, show_default=True, help="tokens of one side of the image")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="default cuda where there is one")
@click.option("--repeats", type=COUNT, default=3, show_default=True)
@click.option("--json", "target", type=PATH, help="where the rows go")
def main(
    models: tuple[str, ...],
    heads: int | None,
    cells: int,
    device: str | None,
    repeats: int,
    target: Path | None,
) -> None:
    """Measure and print."""
    place = find_device(device)
    torch.manual_seed(0)
    rows = [measure(name, heads, cells, repeats, place) for name in models]
    print(f"device: {device_name() if place.type == 'cuda' else 'CPU'}, float32, {cells} x {cells} cells")
    print(f"{'model':<17}{'parameters':>12}{'tensors':>9}{'forward':>12}{'check':>11}{'ratio':>9}")
    for row in rows:
        print(
            f"{row['model']:<17}{row['parameters'] / 1e9:>10.2f} B{row['tensors']:>9}"
            f"{row['forwardSeconds'] * 1e3:>9.0f} ms{row['checkSeconds'] * 1e3:>8.2f} ms{row['ratio']:>9.3%}"
        )
    if target:
        save_rows(target, rows)


if __name__ == "__main__":
    main()
