"""What the check of the model at the beginning of each run costs, against one forward, on the real architectures.

    python benchmarks/model_check.py --json results.json

Random weights at real widths. The depth is reduced to fit into memory: modules, tensors and the forward's work grow
alike with it, so the ratio is that of the whole model. Outputs are small (512 text tokens, an image of 256 x 256
pixels, one frame of video): a forward of the usual size takes longer, so the ratio is an upper bound on this device.
The last column is the check alone on all layers, at a small width: its time depends on how many tensors there are.
"""

from __future__ import annotations

import json
import platform
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import timing
import torch
from diffusers import FluxTransformer2DModel, WanTransformer3DModel

from budc.runtimes.diffusers.model_record import ModelRecord
from budc.runtimes.diffusers.own_layers import OwnLayers

DTYPE = torch.float32


def flux(double: int, single: int, heads: int = 24) -> FluxTransformer2DModel:
    """Return FLUX.1-dev's transformer with these numbers of blocks."""
    return FluxTransformer2DModel(
        in_channels=64, num_layers=double, num_single_layers=single, attention_head_dim=128,
        num_attention_heads=heads, joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True,
        axes_dims_rope=(16, 56, 56),
    )  # fmt: skip


def wan(layers: int, heads: int = 12, ffn: int = 8960) -> WanTransformer3DModel:
    """Return Wan2.1-T2V-1.3B's transformer with this number of blocks."""
    return WanTransformer3DModel(
        num_attention_heads=heads, attention_head_dim=128, in_channels=16, out_channels=16, text_dim=4096,
        freq_dim=256, ffn_dim=ffn, num_layers=layers, cross_attn_norm=True, qk_norm="rms_norm_across_heads",
    )  # fmt: skip


def flux_inputs(device: torch.device) -> dict[str, Any]:
    """Return inputs for an image of 256 x 256 pixels."""
    rows, text = 16, 512
    cells = torch.arange(rows, dtype=DTYPE)
    grid = torch.cartesian_prod(torch.zeros(1, dtype=DTYPE), cells, cells).to(device)
    return {
        "hidden_states": torch.randn(1, rows * rows, 64, dtype=DTYPE, device=device),
        "encoder_hidden_states": torch.randn(1, text, 4096, dtype=DTYPE, device=device),
        "pooled_projections": torch.randn(1, 768, dtype=DTYPE, device=device),
        "timestep": torch.full((1,), 0.5, dtype=DTYPE, device=device),
        "guidance": torch.full((1,), 3.5, device=device),
        "img_ids": grid,
        "txt_ids": torch.zeros(text, 3, dtype=DTYPE, device=device),
    }


def wan_inputs(device: torch.device) -> dict[str, Any]:
    """Return inputs for one frame of 480 x 832 pixels."""
    return {
        "hidden_states": torch.randn(1, 16, 1, 60, 104, dtype=DTYPE, device=device),
        "encoder_hidden_states": torch.randn(1, 512, 4096, dtype=DTYPE, device=device),
        "timestep": torch.full((1,), 500.0, device=device),
    }


def check_seconds(model: torch.nn.Module, repeats: int) -> float:
    """Time the whole check: the walk over the layers, and the comparison with the record."""
    record = ModelRecord(OwnLayers(model))

    def check() -> None:
        assert record.change(OwnLayers(model), adapters_allowed=False) is None

    return timing.seconds(check, repeats)


def measure(
    name: str,
    reduced: Callable[[], torch.nn.Module],
    whole: Callable[[], torch.nn.Module],
    inputs: dict[str, Any],
    repeats: int,
) -> dict[str, Any]:
    """Time the check and one forward of `reduced`, and the check of `whole`."""
    device = inputs["hidden_states"].device
    model = reduced().to(device, DTYPE).eval()
    with torch.no_grad():
        forward = timing.seconds(lambda: model(**inputs, return_dict=False), repeats)
    check = check_seconds(model, 10 * repeats)
    every_layer = whole().to(device, DTYPE)
    return {
        "model": name,
        "forwardSeconds": forward,
        "checkSeconds": check,
        "ratio": check / forward,
        "tensors": len(OwnLayers(every_layer).tensors),
        "checkSecondsOfAllLayers": check_seconds(every_layer, 10 * repeats),
    }


@click.command(help=__doc__)
@click.option("--repeats", type=int, default=3, show_default=True)
@click.option("--json", "target", type=click.Path(path_type=Path), help="where the rows go")
def main(repeats: int, target: Path | None) -> None:
    """Measure and print."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    torch.manual_seed(0)
    rows = [
        measure(
            "FLUX.1-dev, 1 + 2 of 19 + 38 blocks",
            lambda: flux(1, 2),
            lambda: flux(19, 38, heads=1),
            flux_inputs(device),
            repeats,
        ),
        measure(
            "Wan2.1-T2V-1.3B, 3 of 30 blocks",
            lambda: wan(3),
            lambda: wan(30, heads=1, ffn=128),
            wan_inputs(device),
            repeats,
        ),
    ]
    print(f"device: {on}, {str(DTYPE).removeprefix('torch.')}")
    print(f"{'model':<38}{'forward':>12}{'check':>10}{'ratio':>9}{'check of all layers':>22}")
    for row in rows:
        print(
            f"{row['model']:<38}{row['forwardSeconds'] * 1e3:>9.0f} ms{row['checkSeconds'] * 1e3:>7.2f} ms"
            f"{row['ratio']:>9.2%}{row['checkSecondsOfAllLayers'] * 1e3:>19.2f} ms"
        )
    if target:
        result = {
            "command": shlex.join(["python", *sys.argv]),
            "device": on,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "rows": rows,
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
