"""The names that reports and evaluations use: metrics, baselines, objectives, settings. Each is written here alone."""

from collections.abc import Mapping
from typing import Final

LATENT_MSE: Final = "latent-mse"
"""Mean squared error of the final latents against the full run's; lower is better."""
PSNR: Final = "psnr"
"""Of decoded frames, dB; higher is better."""

HIGHER_IS_BETTER: Final[Mapping[str, bool]] = {
    LATENT_MSE: False,
    PSNR: True,
    "ssim": True,
    "flip": False,
    "ssimulacra2": True,
    "vmaf": True,
    "xpsnr": True,
    "lpips": False,
    "lpips-vgg": False,
    "clip-score": True,
    "image-reward": True,
    "hpsv2.1": True,
}
"""The metrics of evaluations. `budc.compiler.metrics` measures those of frames."""
METRIC_TITLES: Final[Mapping[str, str]] = {
    LATENT_MSE: LATENT_MSE,
    PSNR: "PSNR",
    "ssim": "SSIM",
    "flip": "FLIP",
    "ssimulacra2": "SSIMULACRA2",
    "vmaf": "VMAF",
    "xpsnr": "XPSNR",
    "lpips": "LPIPS",
    "lpips-vgg": "LPIPS (VGG)",
    "clip-score": "CLIP score",
    "image-reward": "ImageReward",
    "hpsv2.1": "HPSv2.1",
}
"""What sentences and tables call them."""

CALIBRATED: Final = "calibrated"
"""The setting that a policy was made for."""
POLICY: Final = "policy"
"""What a policy is called in its own evaluation."""
FULL: Final = "full"
"""Every step computed."""
UNIFORM: Final = "uniform"
"""Evenly spread computed steps, plain reuse, at the policy's NFE."""
FEWER_STEPS: Final = "fewer-steps"
"""The same solver with as many steps as the policy has evaluations, nothing cached."""
FROZEN: Final = "frozen"
"""A transferred policy with its coefficients as they came."""
NATIVE: Final = "native"
"""A policy searched on the target of a transfer itself."""

OBJECTIVES: Final[Mapping[str, str]] = {"mean": f"{LATENT_MSE}-mean", "log-mean": f"{LATENT_MSE}-log-mean"}
"""What a search minimises -> its name in a report."""
