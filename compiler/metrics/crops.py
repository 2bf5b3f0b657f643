"""Frames as networks of one input size take them: resized, cropped or padded to a square, normalised."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import interpolate, pad

_MEAN, _DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def centre_crop(frames: Tensor, side: int) -> Tensor:
    """Return frames (N, 3, rows, columns) with the shorter side resized to `side`, and the middle square of them."""
    rows, columns = frames.shape[-2:]
    shorter = min(rows, columns)
    resized = _resized(frames, side * rows // shorter, side * columns // shorter)
    top, left = (round((extent - side) / 2) for extent in resized.shape[-2:])
    return resized[..., top : top + side, left : left + side]


def pad_to_square(frames: Tensor, side: int) -> Tensor:
    """Return frames (N, 3, rows, columns) with the longer side resized to `side`, in the middle of a black square."""
    longer = max(frames.shape[-2:])
    rows, columns = (round(extent * side / longer) for extent in frames.shape[-2:])
    resized = _resized(frames, rows, columns)
    top, left = (side - rows) // 2, (side - columns) // 2
    return pad(resized, (left, side - columns - left, top, side - rows - top))


def normalised(frames: Tensor) -> Tensor:
    """Return frames in 0..1 with the mean and the deviation of each colour in CLIP's training set taken out."""
    mean, deviation = (frames.new_tensor(values).view(3, 1, 1) for values in (_MEAN, _DEVIATION))
    return (frames - mean) / deviation


def _resized(frames: Tensor, rows: int, columns: int) -> Tensor:
    if tuple(frames.shape[-2:]) == (rows, columns):
        return frames
    return interpolate(frames, (rows, columns), mode="bicubic", antialias=True, align_corners=False)
