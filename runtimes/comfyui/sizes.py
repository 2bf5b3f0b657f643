"""Sizes: which of a policy's a workflow asks for. Each may have sigmas and predictors of its own."""

from budc.schema.errors import UsageError
from budc.schema.policy import PolicyDocument, Shape


def calibrated_size(
    document: PolicyDocument, width: int, height: int, frames: int
) -> tuple[PolicyDocument, Shape]:
    """Return the policy as it is at a size, and that size; 0 stands for the size that was searched on.

    Raises:
        UsageError: the policy is not for this size.
    """
    shapes = document.pipeline().shapes
    own = shapes[0]
    asked = (width or own.width, height or own.height, frames or own.frames)
    for shape in shapes:
        if (shape.width, shape.height, shape.frames) == asked:
            return document.of_size(shape.frames, shape.height, shape.width), shape
    known = ", ".join(_described(shape.width, shape.height, shape.frames) for shape in shapes)
    raise UsageError(
        f"size: the policy has {known}, this node asks for {_described(*asked)}",
        remedy="choose one of these; 0 is the size that the policy was searched on",
    )


def _described(width: int, height: int, frames: int) -> str:
    return f"{width}x{height}" + (f"x{frames}" if frames > 1 else "")
