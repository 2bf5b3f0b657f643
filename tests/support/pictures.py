"""Pictures and prompt files that name them, for models that start from an image."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_picture(path: Path, seed: int = 0, size: tuple[int, int] = (20, 14)) -> Path:
    """Write a picture of random blocks, (width, height), whose format is that of the suffix."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST).save(path)
    return path


def write_prompts(folder: Path, name: str, prompts: dict[str, int]) -> Path:
    """Write a CSV file of prompts, each with the picture of its seed beside it."""
    rows = ["prompt,image"]
    for prompt, seed in prompts.items():
        picture = write_picture(folder / f"{seed}.png", seed)
        rows.append(f"{prompt},{picture.name}")
    path = folder / name
    path.write_text("\n".join(rows) + "\n")
    return path
