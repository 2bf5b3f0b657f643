"""A profile as a commented TOML file, for its owner to read and change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from budc.policies.conditioning_images import image_roles
from budc.policies.folder_profile import FolderProfile
from budc.policies.profile import ModelProfile

_COLUMN = 56
"""Where comments begin."""
_SHIFTS = ("shift", "flow_shift", "use_dynamic_shifting")
"""Settings of schedulers that deployments most often change."""


def profile_text(made: FolderProfile, folder: Path, trunk: str, scheduler: Mapping[str, Any]) -> str:
    """Return the TOML of a profile that was made for `folder`.

    Args:
        made: the profile, and where its deployment is from.
        folder: the model folder, as the file is to name it.
        trunk: what a policy skips, in words.
        scheduler: the settings of the folder's scheduler, without the library's notes.
    """
    profile = made.profile
    lines = [*_head(made, folder)]
    for name, (value, comment) in _fields(made, folder, trunk, scheduler).items():
        lines.append(_line(f"{name} = {_value(value)}", comment))
    if profile.experts is not None:
        lines += [
            "",
            _line("[experts]", "the second denoiser takes over"),
            _line(
                f"boundary = {_value(profile.experts.boundary)}",
                "boundary_ratio in model_index.json must agree",
            ),
            _line(f"guidance = {_value(profile.experts.guidance)}", "scale of the second one"),
        ]
    for denoiser, settings in profile.architecture.items():
        lines += ["", _line(f"[architecture.{denoiser}]", f"{denoiser}/config.json must agree")]
        lines += [f"{name} = {_value(value)}" for name, value in settings.items()]
    return "\n".join([*lines, *_tail(profile)]) + "\n"


def _head(made: FolderProfile, folder: Path) -> list[str]:
    same = (
        "of the same architecture" if made.same_architecture else "of the same pipeline, not of the same size"
    )
    lines = [
        f"# Made by `budc init` for {json.dumps(str(folder), ensure_ascii=False)}.",
        f"# What no folder says (steps, guidance, size, prompts) is as {made.base} is deployed, a model {same}.",
        "# Change what is not so for yours.",
    ]
    if made.others:
        lines.append(f"# As well of this architecture: {', '.join(made.others)} (budc init --like NAME).")
    return [*lines, ""]


def _fields(
    made: FolderProfile, folder: Path, trunk: str, scheduler: Mapping[str, Any]
) -> dict[str, tuple[Any, str]]:
    """Return field → (value, comment), in the order of the file."""
    profile = made.profile
    shifts = {name: scheduler[name] for name in _SHIFTS if scheduler.get(name) is not None}
    own = ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted(shifts.items()))
    fields: dict[str, tuple[Any, str]] = {
        "name": (profile.name, "in artifacts and file names"),
        "title": (profile.title, ""),
        "family": (profile.family, "policies transfer within a family; trust may be limited to one"),
        "weights": (str(folder), "model folder, relative to this file"),
        "pipeline_class": (profile.pipeline_class, "model_index.json"),
        "denoisers": (profile.denoisers, f"folder -> class; what a policy skips: {trunk}"),
        "scheduler": (profile.scheduler, "of diffusers; may be another one than the folder's"),
        "scheduler_config": (
            profile.scheduler_config,
            f"what differs from the folder's ({own or 'no shift'})",
        ),
        "steps": (profile.steps, "sampler steps of the full run"),
        "guidance": (profile.guidance, "scale"),
        "guidance_rule": (profile.guidance_rule, '"classifier-free", "distilled" or "none"'),
        "branches": (list(profile.branches), "of a step: cond and uncond where guidance is classifier-free"),
        "height": (profile.height, "pixels"),
        "width": (profile.width, "pixels"),
        "frames": (profile.frames, "1 for pictures"),
        "text_tokens": (profile.text_tokens, "the pipeline pads text to so many tokens"),
        "dtype": (profile.dtype, "in which it runs"),
        "licence": (profile.licence, "of the weights"),
        "size_gb": (profile.size_gb, "of all weights"),
        "parameters": (profile.parameters, "billions, of one denoiser"),
    }
    return {name: item for name, item in fields.items() if item[0] is not None}


def _tail(profile: ModelProfile) -> list[str]:
    prompts, search = profile.prompts, profile.search
    file = "a file of yours, one prompt a line, or a shipped one"
    if image_roles(profile.pipeline_class):
        file = "a .csv or .jsonl file of yours, with an image for each prompt"
    return [
        "",
        "[prompts]",
        _line(f"calibration = {_value(prompts.calibration)}", file),
        _line(f"calibration_size = {prompts.calibration_size}", "how many of them are searched on"),
        _line(f"held_out = {_value(prompts.held_out)}", "what the report is measured on; none of the prompts above"),
        f"held_out_size = {prompts.held_out_size}",
        _line(f"negative = {_value(prompts.negative)}", "negative prompt, as deployed"),
        "",
        _line("[search]", "of --search paper alone"),
        f"temperatureStart = {search.temperature_start}",
        f"temperatureEnd = {search.temperature_end}",
        f"protectedFraction = {search.protected_fraction}",
    ]  # fmt: skip


def _line(text: str, comment: str) -> str:
    return f"{text:<{_COLUMN - 1}} # {comment}" if comment else text


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{name} = {_value(item)}" for name, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    # JSON's texts, numbers, truths and lists are TOML's too, but for one character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
