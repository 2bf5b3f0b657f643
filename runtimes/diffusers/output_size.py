"""The output size that a pipeline will make, read from the latents that it has prepared.

Sizes are (frames, height, width) in pixels, frames 1 for images; tokens are what the blocks see.
"""

from typing import Any, NamedTuple

from budc.runtimes.sampling.families import Family


class Size(NamedTuple):
    """Output size in frames and pixels."""

    frames: int
    height: int
    width: int


def prepared_size(family: Family, pipe: Any, prepared: Any) -> Size | None:
    """Return the output size for `prepared`, which the pipeline's `prepare_latents` returned.

    None where it cannot be told: packed latents do not show rows and columns. Some pipelines return position ids
    with them, which do.
    """
    latents = prepared[0] if isinstance(prepared, tuple) else prepared
    if family.layout == "volume":
        frames, rows, columns = latents.shape[-3:]
        spatial = pipe.vae_scale_factor_spatial
        return Size((frames - 1) * pipe.vae_scale_factor_temporal + 1, rows * spatial, columns * spatial)
    if family.layout == "image":
        rows, columns = latents.shape[-2:]
        return Size(1, rows * pipe.vae_scale_factor, columns * pipe.vae_scale_factor)
    if not isinstance(prepared, tuple):
        return None
    positions = prepared[-1].reshape(-1, 3)
    cell = 2 * pipe.vae_scale_factor
    rows, columns = (int(positions[:, axis].max()) + 1 for axis in (1, 2))
    return Size(1, rows * cell, columns * cell)


def trunk_tokens(family: Family, pipe: Any, transformer: Any, size: Size) -> int | None:
    """Return how many tokens are cached for an output of `size`, per sample.

    None where the transformer pads them to a length that its configuration does not tell.
    """
    if family.layout == "volume":
        patch_frames, patch_rows, patch_columns = _patch(transformer.config)
        spatial = pipe.vae_scale_factor_spatial
        frames = (size.frames - 1) // pipe.vae_scale_factor_temporal + 1
        rows, columns = size.height // spatial, size.width // spatial
        return int((frames // patch_frames) * (rows // patch_rows) * (columns // patch_columns))
    if family.layout == "image":
        return None
    cell = 2 * pipe.vae_scale_factor
    return int((size.height // cell) * (size.width // cell))


def _patch(config: Any) -> tuple[int, int, int]:
    size = config.patch_size
    return (config.patch_size_t, size, size) if isinstance(size, int) else tuple(size)
