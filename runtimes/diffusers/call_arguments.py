"""The arguments of a pipeline's call that a policy was calibrated for."""

import inspect
from typing import Any

from budc.schema.policy import PolicyDocument


def call_arguments(pipe: Any, document: PolicyDocument) -> dict[str, Any]:
    """Return steps, guidance, size, text length and negative prompt by the names that this pipeline's call has.

    What the policy leaves open, such as a negative prompt that varied, is not among them.
    """
    shape, sampler = document.pipeline().shape, document.sampler
    arguments: dict[str, Any] = {
        "num_inference_steps": sampler.steps,
        "height": shape.height,
        "width": shape.width,
        "num_frames": shape.frames,
        "max_sequence_length": shape.text_tokens,
        "guidance_scale": sampler.guidance,
    }
    if sampler.negative_prompt is not None:
        arguments["negative_prompt"] = sampler.negative_prompt.text
    for expert in sampler.experts:
        arguments["guidance_scale_2"] = expert.guidance
    accepted = inspect.signature(type(pipe).__call__).parameters
    if sampler.guidance_rule == "classifier-free" and "true_cfg_scale" in accepted:
        # Qwen-Image: its guidance_scale is for a distilled edition.
        arguments["true_cfg_scale"] = arguments.pop("guidance_scale")
    return {name: value for name, value in arguments.items() if name in accepted and value is not None}
