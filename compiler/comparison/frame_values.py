"""Metrics of decoded frames, prompt by prompt: each sample is decoded once for all metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from budc.compiler.metrics import FrameMetric
from budc.compiler.models.model import LoadedModel
from budc.compiler.storage.journal import Journal
from budc.progress import progress
from budc.runtimes.sampling.device_memory import device_memory

_REMEDY = "evaluate with --no-frames, or on a device with more memory"
Values = dict[str, dict[str, float]]
"""Method -> metric -> value of one sample. In the journal a metric with weights is named with their digest."""


def frame_values(
    model: LoadedModel,
    latents: Mapping[str, Tensor],
    reference: Tensor,
    prompts: Sequence[str],
    metrics: Mapping[str, FrameMetric],
    journal: Journal,
    label: str,
) -> list[Values]:
    """Return every metric of every method's final latents (N, ...) against the reference's, sample by sample.

    What the journal has is not measured again: a further metric or method measures only what is missing, and so do
    other weights of a metric.

    Raises:
        DeviceMemory: the VAE or one sample does not fit into the device's memory, even in tiles.
    """
    if not metrics:
        return [{} for _ in prompts]
    keys = {f"{name} {metric.weights}" if metric.weights else name: name for name, metric in metrics.items()}
    known = [_known(journal, label, index) for index in range(len(prompts))]
    if all(_missing(values, latents, keys) == {} for values in known):
        return _by_name(known, keys)
    model.denoisers.offload()
    with device_memory("the VAE", _REMEDY):
        decode = model.adapter.decoder(model.folder, model.profile, model.device)
    with progress(f"{label} frames", len(prompts)) as bar:
        for index, values in enumerate(known):
            missing = _missing(values, latents, keys)
            if missing:
                with device_memory("decoding a sample", _REMEDY):
                    expected = decode(reference[index : index + 1])[0]
                for name, wanted in missing.items():
                    with device_memory("decoding a sample", _REMEDY):
                        frames = decode(latents[name][index : index + 1])[0]
                    values.setdefault(name, {}).update(
                        {key: metrics[keys[key]].measure(frames, expected, prompts[index]) for key in wanted}
                    )
                journal.put(_key(label, index), values)
            bar.advance(replayed=not missing)
    return _by_name(known, keys)


def _by_name(known: Sequence[Values], keys: Mapping[str, str]) -> list[Values]:
    return [
        {
            method: {keys[key]: value for key, value in row.items() if key in keys}
            for method, row in values.items()
        }
        for values in known
    ]


def _key(label: str, index: int) -> str:
    return f"{label} frames {index}"


def _known(journal: Journal, label: str, index: int) -> Values:
    return journal.get(_key(label, index), Values) or {}


def _missing(values: Values, methods: Mapping[str, object], keys: Mapping[str, str]) -> dict[str, list[str]]:
    wanted = {name: [key for key in keys if key not in values.get(name, {})] for name in methods}
    return {name: names for name, names in wanted.items() if names}
