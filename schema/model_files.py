"""A model folder against a policy: by its files' bytes, or, where it was saved again, by what they hold.

    variant = accepted_files(folder, document.model, digests)

Saved again, the same model has other bytes: `config.json` names another place and version, weights are in other
shards. Where an artifact lists the settings of every denoiser, a folder without any of its variants is accepted if
these settings are those in `config.json` and the tensor root is that of all safetensors beside it. The scheduler's
configuration is left to the check of the sampler, which the artifact lists setting by setting.
"""

import os
from pathlib import Path

from budc.schema import folder as model_folder
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import check_rivals, find_variant
from budc.schema.errors import UnsupportedModel, WeightsMismatch, WeightsMissing
from budc.schema.file_diagnosis import diagnose
from budc.schema.model_config import (
    CLASS,
    Defaults,
    first_difference,
    read_config,
    settings_of,
    unknown_defaults,
)
from budc.schema.policy import DenoiserBinding, ModelBinding, Variant

CONFIG = "config.json"
SAVED_AGAIN = "saved-again"
"""How the files of a folder are called that is accepted for what they hold."""


def accepted_files(
    folder: str | os.PathLike[str],
    model: ModelBinding,
    digests: DigestCache,
    defaults: Defaults = unknown_defaults,
) -> Variant:
    """Return the files of `folder` that a policy for `model` accepts: a listed variant, or a model saved again.

    Args:
        folder: the model folder.
        model: what the policy is bound to.
        digests: hashes the files.
        defaults: knows the defaults of classes' settings, which a newer library writes and an older one leaves out.

    Raises:
        WeightsMissing, WeightsMismatch, UnsafeWeights: it is another model, or not safe to load.
        UnsupportedModel: a network that is bound to no files.
    """
    try:
        return find_variant(folder, model.variants, sha256=digests)
    except (WeightsMissing, WeightsMismatch) as reason:
        if any(denoiser.config is None for denoiser in model.denoisers):
            raise
        try:
            return _saved_again(folder, model, digests, defaults)
        except WeightsMissing:
            raise reason from None


def _saved_again(
    folder: str | os.PathLike[str], model: ModelBinding, digests: DigestCache, defaults: Defaults
) -> Variant:
    for denoiser in model.denoisers:
        _check_config(folder, denoiser, defaults)
    files: dict[str, str] = {}
    for denoiser in model.denoisers:
        files |= _weights(folder, denoiser, digests)
    check_rivals(folder, files)
    return Variant(name=SAVED_AGAIN, files=dict(sorted(files.items())))


def _check_config(folder: str | os.PathLike[str], denoiser: DenoiserBinding, defaults: Defaults) -> None:
    name = f"{denoiser.name}/{CONFIG}"
    path = model_folder.resolve(folder, name)
    _refuse_damaged(path, f"{name} in {folder}")
    config = read_config(path, f"{name} in {folder}")
    if (found := config.get(CLASS)) != denoiser.class_name:
        raise UnsupportedModel(
            f"{name} in {folder}: {CLASS} is {found!r}, the policy is for {denoiser.class_name!r}",
            remedy="use the model that the policy was compiled for",
        )
    difference = first_difference(
        denoiser.config or {}, settings_of(config), lambda: defaults(denoiser.class_name)
    )
    if difference is not None:
        raise WeightsMismatch(
            f"{name} in {folder}: {difference.name} is {difference.actual!r}, "
            f"the policy is for {difference.expected!r}"
        )


def _weights(
    folder: str | os.PathLike[str], denoiser: DenoiserBinding, digests: DigestCache
) -> dict[str, str]:
    """Return the sha256 of all that a loader could take the weights from, whose tensor root is the policy's."""
    names = [
        f"{denoiser.name}/{path.name}"
        for path in sorted(Path(folder, denoiser.name).iterdir())
        if path.name.endswith((".safetensors", ".safetensors.index.json"))
    ]
    paths = {name: model_folder.resolve(folder, name) for name in names}
    shards = [path for name, path in paths.items() if name.endswith(".safetensors")]
    if not shards:
        raise WeightsMissing(f"{denoiser.name} in {folder}: no safetensors file")
    for name, path in paths.items():
        _refuse_damaged(path, f"{name} in {folder}")
    sha256, root = digests.with_root(shards)
    if root != denoiser.tensor_root:
        raise WeightsMismatch(
            f"the weights of {denoiser.name} in {folder} have tensor root {root[7:19]}…, "
            f"the policy is for {denoiser.tensor_root[7:19]}…"
        )
    sha256 |= digests(path for path in paths.values() if path not in sha256)
    return {name: sha256[path] for name, path in paths.items()}


def _refuse_damaged(path: Path, name: str) -> None:
    if (diagnosis := diagnose(path)) is not None:
        raise WeightsMismatch(f"{name} {diagnosis.what}", remedy=diagnosis.remedy)
