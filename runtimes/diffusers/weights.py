"""Identity: is the model in this pipeline the one that the policy is bound to?

1. The model folder is known (given, or the transformer remembers where it was loaded from): every file of one
   accepted variant must match its digest, and the weights in memory must be the ones in those files: rows
   spread over each tensor, the first and the last among them, are compared, which a fine-tune, a fused
   adapter or a second model does not pass. An edit of a few chosen rows in memory can pass.
2. Otherwise the tensor root is computed from the weights in memory and compared.

Weights of the same architecture but other values are refused, unless uncalibrated
runs are allowed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from budc.runtimes.admission.settings import SettingsCheck
from budc.schema.digest_cache import DigestCache
from budc.schema.digests import ARCHITECTURE, TENSORS, find_variant, root_of, shape_record, value_record
from budc.schema.errors import ModelError, UnsafeWeights, UnsupportedModel, WeightsMismatch, WeightsMissing
from budc.schema.policy import DenoiserBinding, PolicyDocument, Variant

ROWS = 16
"""Rows of a tensor in memory that are compared with its file."""

_DTYPES: Mapping[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""How safetensors headers, and so the tensor root, call a dtype."""


def verify_model(
    transformer: nn.Module,
    denoiser: DenoiserBinding,
    document: PolicyDocument,
    calibration: SettingsCheck,
    *,
    weights_dir: Path | None = None,
    digests: DigestCache | None = None,
) -> None:
    """Verify the transformer against the policy's model binding, in which it is `denoiser`.

    `weights_dir` is the model folder; `digests` remembers what was hashed before, default the user's cache.

    Raises:
        UnsupportedModel: the transformer's class is another one.
        ModelError: its files or its weights in memory are not those of any variant of the policy.
    """
    if denoiser.class_name != type(transformer).__name__:
        raise UnsupportedModel(
            f"the policy is for {denoiser.class_name}, the pipeline has {type(transformer).__name__}",
            remedy="use the model that the policy was compiled for",
        )
    folder = weights_dir or loaded_from(transformer, denoiser.name)
    try:
        variant = None
        if folder is not None:
            try:
                variant = find_variant(
                    folder, document.model.variants, sha256=digests or DigestCache.of_user()
                )
            except WeightsMissing:
                # What the transformer remembers may have another layout; what the user says may not.
                if weights_dir is not None:
                    raise
        if folder is None or variant is None:
            _verify_memory(transformer, denoiser)
        else:
            _verify_loaded(transformer, denoiser, folder, variant)
    except UnsafeWeights:
        raise
    except ModelError as error:
        if not calibration.allow or memory_architecture(transformer) != denoiser.architecture:
            raise
        calibration.differ("weights", str(error))


def loaded_from(transformer: Any, component: str) -> Path | None:
    """Return the model folder that a transformer remembers being loaded from, if it still is one."""
    remembered = transformer.config.get("_name_or_path")
    if not remembered or not Path(remembered).is_dir():
        return None
    folder = Path(remembered)
    return folder.parent if folder.name == component else folder


def memory_root(transformer: nn.Module) -> str:
    """Return the weights' tensor root as `budc.schema.digests` defines it, from the values in memory.

    Equal to that of the files they were loaded from, unless they were cast since.
    """
    return root_of(TENSORS, {name.encode(): _value_record(t) for name, t in _weights(transformer).items()})


def memory_architecture(transformer: nn.Module) -> str:
    """Return the architecture digest of the weights in memory: names and shapes."""
    records = {name.encode(): shape_record(tensor.shape) for name, tensor in _weights(transformer).items()}
    return root_of(ARCHITECTURE, records)


def _verify_memory(transformer: nn.Module, denoiser: DenoiserBinding) -> None:
    if any(tensor.is_meta for tensor in _weights(transformer).values()):
        raise WeightsMismatch(
            f"{denoiser.name}: its folder is not known and its weights are not in memory",
            remedy="pass weights_dir, the model folder",
        )
    root = memory_root(transformer)
    if root != denoiser.tensor_root:
        raise WeightsMismatch(
            f"{denoiser.name}: the weights in memory have tensor root {root}, "
            f"the policy is for {denoiser.tensor_root}",
            remedy="pass weights_dir, the model folder, if the weights were cast after loading",
        )


def _verify_loaded(transformer: nn.Module, denoiser: DenoiserBinding, folder: Path, variant: Variant) -> None:
    """Compare rows of every tensor in memory with its file's, cast as the model was."""
    weights = _weights(transformer)
    seen: set[str] = set()
    for name, rows in _rows(folder, denoiser.name, variant):
        tensor = weights.get(name)
        if tensor is None:
            raise WeightsMismatch(f"{denoiser.name} has no tensor {name}, which is in the model folder")
        seen.add(name)
        if tensor.is_meta:
            continue
        mine = tensor.detach()[_spread(len(tensor))] if tensor.ndim else tensor.detach()
        if mine.shape != rows.shape or not torch.equal(mine.cpu(), rows.to(tensor.dtype)):
            raise WeightsMismatch(
                f"{denoiser.name}.{name} in memory is not what the model folder holds "
                "(fine-tuned, fused or quantised?)",
                remedy="load the pipeline anew from the model folder, or compile a policy for this model",
            )
    if seen != weights.keys():
        missing = min(weights.keys() - seen)
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
                    part = file.get_slice(name)
                    shape = part.get_shape()
                    if shape and shape[0]:
                        yield name, torch.cat([part[row : row + 1] for row in _spread(shape[0])])
                    else:
                        yield name, file.get_tensor(name)


def _weights(transformer: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors under their own names, adapters left aside."""
    return {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in transformer.state_dict().items()
        if ".lora_" not in name
    }


def _value_record(tensor: Tensor) -> bytes:
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    dtype = _DTYPES.get(tensor.dtype, str(tensor.dtype))
    return value_record(dtype, tensor.shape, hashlib.sha256(raw.data).digest())
