"""Adapters (LoRA and its kin) in a transformer: which are active, at what scale, and what they add.

PEFT puts a layer around each module that adapters change. The layer holds the tensors of every adapter under the
adapter's name, which each user chooses, so an adapter is identified by its tensors alone.
"""

import hashlib
import math
import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from budc.policies.adapter_files import AdapterFile
from budc.runtimes.sampling.tensor_records import tensor_record
from budc.schema.digests import TENSORS, root_of, value_record
from budc.schema.errors import UnsupportedModel
from budc.schema.foreign_error import reason_of

_WRAPPERS = ("base_layer", "_orig_mod")
"""Where PEFT's layers and compiled modules keep the module that they replace."""


@dataclass
class ActiveAdapter:
    """An adapter that changes the transformer's output, under the name that its user gave it."""

    name: str
    scales: set[float] = field(default_factory=set)
    """Of its layers, 1 for as it is; several only where it was scaled layer by layer."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """What it adds, by the path in the transformer's tree of modules with the adapter's own name left out."""
    factors: dict[str, float] = field(default_factory=dict)
    """Path of a module -> the factor of what is added to its output, at scale 1."""
    merged: bool = False
    """Whether it is in the weights, where it cannot be told from them."""

    def root(self) -> str:
        """Return the tensor root of what it adds; see "Adapters" in the specification of the artifact."""
        records = {path.encode(): tensor_record(tensor) for path, tensor in self.tensors.items()}
        for path, factor in self.factors.items():
            content = hashlib.sha256(struct.pack("<d", factor)).digest()
            records[f"{path}.scaling".encode()] = value_record("F64", (), content)
        return root_of(TENSORS, records)


def active_adapters(transformer: nn.Module) -> dict[str, ActiveAdapter]:
    """Return the adapters that change a transformer's output now, by name, sorted.

    One counts where a layer has it active and not disabled, or merged into its weights.
    """
    found: dict[str, ActiveAdapter] = {}
    for path, module in transformer.named_modules():
        if not hasattr(module, "active_adapters") or not hasattr(module, "merged_adapters"):
            continue
        layer: Any = module
        own_path = ".".join(part for part in path.split(".") if part not in _WRAPPERS)
        tensors = _adapter_tensors(layer)
        active = set() if layer.disable_adapters else tensors.keys() & set(layer.active_adapters)
        for name in active | set(layer.merged_adapters):
            adapter = found.setdefault(name, ActiveAdapter(name))
            adapter.merged |= name in layer.merged_adapters
            adapter.tensors |= {f"{own_path}.{key}": tensor for key, tensor in tensors.get(name, {}).items()}
            factor = _factor(layer, name)
            adapter.factors[own_path] = factor
            adapter.scales.add(layer.scaling[name] / factor if factor else math.nan)
    return dict(sorted(found.items()))


def _adapter_tensors(layer: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Return adapter -> its tensors in a layer, such as "lora_A.weight"; PEFT keeps them as KIND.ADAPTER.REST."""
    tensors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in layer.state_dict().items():
        kind, _, rest = key.partition(".")
        if kind in _WRAPPERS or not rest:
            continue
        adapter, _, name = rest.partition(".")
        tensors.setdefault(adapter, {})[f"{kind}.{name}" if name else kind] = tensor
    return tensors


def _factor(layer: Any, adapter: str) -> float:
    """Return the factor of an adapter's product at scale 1: alpha over the rank, or over its root (rsLoRA)."""
    alphas = layer.lora_alpha if hasattr(layer, "lora_alpha") else layer.alpha
    rank = layer.r[adapter]
    return float(
        alphas[adapter] / (math.sqrt(rank) if getattr(layer, "use_rslora", {}).get(adapter) else rank)
    )


def load_adapters(pipe: Any, files: Sequence[AdapterFile], denoisers: Sequence[str]) -> None:
    """Load adapter files into the denoisers of a pipeline as its users do, with `load_lora_weights`, at their scales.

    Raises:
        UnsupportedModel: a file cannot be loaded, or holds nothing for a denoiser that it is for.
    """
    for denoiser in denoisers:
        transformer = getattr(pipe, denoiser)
        own = [file for file in files if file.is_for(denoiser)]
        for file in own:
            _load(pipe, file, denoiser)
            if file.name not in active_adapters(transformer):
                raise UnsupportedModel(
                    f"{file.path} holds nothing for {type(transformer).__name__} ({denoiser})",
                    remedy="give an adapter that was made for this model",
                )
        if own:
            transformer.set_adapters([file.name for file in own], [file.scale for file in own])


def _load(pipe: Any, file: AdapterFile, denoiser: str) -> None:
    # Only pipelines of two denoisers know this argument.
    second = {"load_into_transformer_2": True} if denoiser == "transformer_2" else {}
    try:
        with warnings.catch_warnings():
            # PEFT warns of every adapter after the first.
            warnings.simplefilter("ignore")
            pipe.load_lora_weights(
                str(file.path.parent),
                weight_name=file.path.name,
                adapter_name=file.name,
                local_files_only=True,
                use_safetensors=True,
                **second,
            )
    except Exception as error:  # the libraries raise whatever the file led them to
        raise UnsupportedModel(
            f"{file.path} cannot be loaded into {denoiser}: {reason_of(error)}",
            remedy="give an adapter that was made for this model",
        ) from error
