"""The images that a policy's samples were made from, against those that a run is given."""

from collections.abc import Mapping, Sequence
from typing import Any

from budc.runtimes.admission.settings import SettingsCheck
from budc.schema.policy import ConditioningImage, ImageRole, PolicyDocument

_ARGUMENTS: Mapping[str, Mapping[str, ImageRole]] = {
    "WanImageToVideoPipeline": {"image": "first-frame", "last_image": "last-frame"}
}
"""Pipeline class → argument of its call, and of its `prepare_latents` → role of the image that is given by it."""


def takes_images(pipe: Any) -> bool:
    """Whether calls of a pipeline are given images that policies can be bound to."""
    return bool(_arguments(pipe))


def check_images(
    document: PolicyDocument, pipe: Any, given: Mapping[str, Any], settings: SettingsCheck
) -> None:
    """Check which images a call of the pipeline, or of its `prepare_latents`, is given.

    Args:
        document: the policy.
        pipe: the pipeline, which scales an image to the size of its output.
        given: the call's arguments by name, without those left at their defaults.
        settings: refuses a difference, or notes it.

    Raises:
        CalibrationMismatch: others than the policy was calibrated with, or none.
    """
    arguments = _arguments(pipe)
    images = [ConditioningImage(role=role) for name, role in arguments.items() if given.get(name) is not None]
    wanted = {image.role for image in document.images}
    names = [name for name, role in arguments.items() if role in wanted]
    others = [name for name, role in arguments.items() if role not in wanted and given.get(name) is not None]
    settings.require(
        "images",
        _described(document.images),
        _described(images),
        f"leave out {', '.join(others)}" if others else f"pass {' and '.join(names)}",
    )


def _arguments(pipe: Any) -> Mapping[str, ImageRole]:
    classes = [cls.__name__ for cls in type(pipe).__mro__]
    return next((_ARGUMENTS[name] for name in classes if name in _ARGUMENTS), {})


def _described(images: Sequence[ConditioningImage]) -> str:
    sizes = [f" of {image.width} x {image.height}" if image.height else "" for image in images]
    return ", ".join(image.role + size for image, size in zip(images, sizes, strict=True)) or "none"
