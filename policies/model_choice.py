"""The model that a user names: one that the package ships, a profile of their own, or a model folder.

    choose_model("wan2.1")
    choose_model("my-wan.toml")
    choose_model("/models/my-wan")

A shipped name wins over a file of that name; write ./NAME for the file.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from budc.policies.folder_profile import profile_from_folder
from budc.policies.profile import ModelProfile, load_profile, profile_names
from budc.policies.profile_rules import check_profile
from budc.schema.errors import BudcError, UsageError
from budc.schema.files import read_limited
from budc.schema.toml import parse_toml

SUFFIX = ".toml"
_LIMIT = 1 << 20


def choose_model(choice: str | Path, door: str = "--model") -> ModelProfile:
    """Return the profile of the model that `choice` names; a Path is never a shipped name. Messages call it `door`.

    Raises:
        UsageError: it names nothing, or a profile that cannot be read or contradicts itself.
        WeightsMissing, UnsupportedModel: a folder that holds no model, or one of no known family.
    """
    path = Path(choice)
    if isinstance(choice, str) and (not choice or choice in profile_names()):
        return load_profile(choice, door)
    if os.path.isdir(path):
        return profile_from_folder(path).profile
    if path.suffix == SUFFIX or os.path.lexists(path):
        return read_profile(path)
    return load_profile(str(choice), door)


def read_profile(path: Path) -> ModelProfile:
    """Read a profile of the user's own; paths in it are relative to the file.

    Prompt files that are not beside it are looked for among the shipped ones.

    Raises:
        UsageError: it cannot be read, is no profile, or contradicts itself; the message names file and field.
    """
    try:
        content = parse_toml(read_limited(path, _LIMIT))
    except (BudcError, ValueError) as error:
        raise UsageError(
            f"{path}: cannot read the profile: {error}", remedy="`budc init MODEL_DIR` writes one"
        ) from error
    try:
        profile = msgspec.convert(content, ModelProfile)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}", remedy="`budc init MODEL_DIR` writes a whole profile") from error
    check_profile(profile, str(path))
    prompts = profile.prompts
    return msgspec.structs.replace(
        profile,
        weights=str(path.parent / profile.weights) if profile.weights else "",
        prompts=msgspec.structs.replace(
            prompts,
            calibration=_beside(path, prompts.calibration),
            held_out=_beside(path, prompts.held_out),
        ),
    )


def _beside(path: Path, name: str) -> str:
    own = path.parent / name
    return os.path.abspath(own) if name and os.path.lexists(own) else name
