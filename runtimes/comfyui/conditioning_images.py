"""The images that a video is made from: which a run is given, compared with those that a policy was calibrated with.

Nodes for image to video put latents beside the noise, and a mask (1, 1 or 4, frames, rows, columns) that is 0 where a
frame is given. The mask says which frames those are; its four channels are the frames of the clip that one frame of
latents stands for.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from budc.runtimes.admission.settings import SettingsCheck
from budc.schema.policy import ImageRole, PolicyDocument

KEYS = frozenset({"concat_latent_image", "concat_mask", "clip_vision_output"})
"""What such nodes add to a conditioning."""

_CHANNELS = 4
_ROLES: Sequence[Sequence[ImageRole]] = (("first-frame",), ("last-frame",), ("first-frame", "last-frame"))


def check_images(
    document: PolicyDocument, network: Any, conditioning: Mapping[str, Any], settings: SettingsCheck
) -> None:
    """Compare the images of one conditioning.

    Raises:
        CalibrationMismatch: others than the policy was calibrated with, or none.
    """
    wanted = " and ".join(image.role for image in document.images)
    remedy = "use the node WanImageToVideo, or WanFirstLastFrameToVideo where there is a last frame"
    settings.require("images", wanted, _given(conditioning), remedy)
    if getattr(network, "img_emb", None) is not None and conditioning.get("clip_vision_output") is None:
        what = "this network sees its image by CLIP too, and the conditioning has no CLIP vision output"
        settings.differ("images", what, "connect CLIPVisionEncode to the node of the image")


def _given(conditioning: Mapping[str, Any]) -> str:
    mask = conditioning.get("concat_mask")
    if conditioning.get("concat_latent_image") is None or mask is None:
        return "none"
    frames = mask == 0
    # One channel says of a frame of latents as a whole whether it is given, which a single last frame is not.
    for roles in _ROLES if mask.shape[1] == _CHANNELS else _ROLES[:1]:
        expected = torch.zeros_like(frames)
        if "first-frame" in roles:
            expected[:, :, 0] = True
        if "last-frame" in roles:
            expected[:, -1, -1] = True
        if torch.equal(expected, frames):
            return " and ".join(roles)
    return "other frames of the clip"
