"""Weights: is the model in this pipeline the one that the policy is bound to?

1. Where the model folder is known (it was given, or the transformer's configuration names it), the policy must accept
   its files (`budc.schema.model_files`), and the weights in memory must be those of the files. Up to `ROWS` rows
   of each tensor are compared, the first and the last among them. A fine-tune, a fused adapter or another model
   fails; an edit of a few chosen rows in memory can pass. What is offloaded to disk is compared there.
2. Otherwise the tensor root is computed from the weights in memory and compared.
3. The network was built with the settings that the policy lists.

Of a network that the policy has quantised, the files are those before it was; its values in memory are compared whole.

Weights of the same architecture but other values are refused, unless uncalibrated runs are allowed.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.own_layers import OnDisk, OwnLayers
from budc.runtimes.diffusers.quantised import check_quantization, verify_values
from budc.runtimes.sampling.network_config import check_settings, library_defaults
from budc.runtimes.sampling.tensor_records import tensor_record
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import ARCHITECTURE, TENSORS, root_of, shape_record
from budc.schema.errors import ModelError, UnsafeWeights, UnsupportedModel, WeightsMismatch, WeightsMissing
from budc.schema.model_files import accepted_files
from budc.schema.policy import DenoiserBinding, PolicyDocument, Variant

ROWS = 16
"""How many rows of a tensor in memory are compared with its file, at most."""


def verify_model(
    transformer: nn.Module,
    denoiser: DenoiserBinding,
    document: PolicyDocument,
    settings: SettingsCheck,
    *,
    weights_dir: Path | None = None,
    digests: DigestCache | None = None,
) -> None:
    """Verify the transformer against `denoiser`, its binding in the policy.

    `weights_dir` is the model folder; `digests` caches the files' digests, by default the user's cache.

    Raises:
        UnsupportedModel: the transformer's class is another one.
        ModelError: its files or its weights in memory are not those of any variant of the policy.
    """
    if denoiser.class_name != type(transformer).__name__:
        raise UnsupportedModel(
            f"the policy is for {denoiser.class_name}, the pipeline has {type(transformer).__name__}",
            remedy="use the model that the policy was compiled for",
        )
    if not check_quantization(transformer, denoiser, settings):
        return
    folder = weights_dir or loaded_from(transformer, denoiser.name)
    try:
        variant = None
        if folder is not None:
            try:
                variant = accepted_files(
                    folder, document.model, digests or DigestCache.of_user(), library_defaults
                )
            except WeightsMissing:
                # The folder that the transformer names may have another layout; one that the user gave may not.
                if weights_dir is not None:
                    raise
        if denoiser.quantization is not None:
            verify_values(transformer, denoiser)
        elif folder is None or variant is None:
            _verify_memory(transformer, denoiser)
        else:
            _verify_loaded(transformer, denoiser, folder, variant)
        check_settings(transformer, denoiser)
    except UnsafeWeights:
        raise
    except ModelError as error:
        if not settings.allow or memory_architecture(transformer) != denoiser.architecture:
            raise
        settings.differ("weights", str(error))


def loaded_from(transformer: Any, component: str) -> Path | None:
    """Return the model folder that a transformer was loaded from, if its configuration names one that exists."""
    name = transformer.config.get("_name_or_path")
    if not name or not Path(name).is_dir():
        return None
    folder = Path(name)
    return folder.parent if folder.name == component else folder


def memory_root(transformer: nn.Module) -> str:
    """Return the weights' tensor root as `budc.schema.digests` defines it, from the values in memory.

    It equals that of the files that they were loaded from, unless they were cast since.
    """
    on_disk = OwnLayers(transformer).on_disk
    return root_of(
        TENSORS,
        {
            name.encode(): tensor_record(_values(name, t, on_disk))
            for name, t in _weights(transformer).items()
        },
    )


def memory_architecture(transformer: nn.Module) -> str:
    """Return the architecture digest of the weights in memory: names and shapes."""
    records = {name.encode(): shape_record(tensor.shape) for name, tensor in _weights(transformer).items()}
    return root_of(ARCHITECTURE, records)


def _verify_memory(transformer: nn.Module, denoiser: DenoiserBinding) -> None:
    if any(tensor.is_meta for tensor in _weights(transformer).values()):
        raise WeightsMismatch(
            f"{denoiser.name}: its folder is not known and its weights are not in memory",
            remedy="pass weights_dir=, the model folder",
        )
    root = memory_root(transformer)
    if root != denoiser.tensor_root:
        raise WeightsMismatch(
            f"{denoiser.name}: the weights in memory have tensor root {root}, "
            f"the policy is for {denoiser.tensor_root}",
            remedy="pass weights_dir=, the model folder, if the weights were cast after loading",
        )


def _verify_loaded(transformer: nn.Module, denoiser: DenoiserBinding, folder: Path, variant: Variant) -> None:
    """Compare rows of every tensor in memory with its file's, cast to the dtype in memory."""
    weights, on_disk = _weights(transformer), OwnLayers(transformer).on_disk
    in_files: set[str] = set()
    for name, rows in _rows(folder, denoiser.name, variant):
        tensor = weights.get(name)
        if tensor is None:
            raise WeightsMismatch(f"{denoiser.name} has no tensor {name}, which is in the model folder")
        in_files.add(name)
        if tensor.is_meta:
            continue
        values = _values(name, tensor, on_disk)
        loaded = values[_spread(len(values))] if values.ndim else values
        if loaded.shape != rows.shape or not torch.equal(loaded.cpu(), rows.to(tensor.dtype)):
            raise WeightsMismatch(
                f"{denoiser.name}.{name} in memory is not what the model folder holds "
                "(fine-tuned, fused or quantised?)",
                remedy="load the pipeline anew from the model folder, or compile a policy for this model",
            )
    if in_files != weights.keys():
        missing = min(weights.keys() - in_files)
        raise WeightsMismatch(f"{denoiser.name}.{missing} is in memory, but in no file that the policy lists")


def _spread(length: int) -> list[int]:
    """Return the indices of up to `ROWS` rows, the first and the last among them."""
    count = min(length, ROWS)
    return sorted({round(k * (length - 1) / max(1, count - 1)) for k in range(count)})


def _rows(folder: Path, component: str, variant: Variant) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(variant.files):
        if path.endswith(".safetensors") and path.split("/")[0] == component:
            with safe_open(folder / path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (the handle is no mapping)
                    stored = file.get_slice(name)
                    shape = stored.get_shape()
                    if shape and shape[0]:
                        yield name, torch.cat([stored[row : row + 1] for row in _spread(shape[0])])
                    else:
                        yield name, file.get_tensor(name)


def _weights(transformer: nn.Module) -> dict[str, Tensor]:
    """Return the model's own tensors under their own names, without those of adapters."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in transformer.state_dict().items()
        if ".lora_" not in name
    }


def _values(name: str, tensor: Tensor, on_disk: Mapping[str, OnDisk]) -> Tensor:
    """Return the values of the tensor `name`, from the offloading library's file where they are not in memory."""
    place = on_disk.get(name)
    if place is None:
        return tensor.detach()
    with safe_open(place.path, framework="pt") as file:
        values: Tensor = file.get_tensor(place.key)
    return values
