"""Run policies on an export with the CUDA provider, and print what the device was asked for; see `__init__.py`.

python watched_run.py EXPORT POLICY...
"""

import ctypes
import json
import sys
import warnings
from itertools import pairwise

from budc.runtimes.admission.trust import UnsignedWarning
from budc.runtimes.onnxruntime.pipeline import load
from budc.schema.artifact import read

COUNTERS = ("launches", "to_device", "to_host", "within", "allocations", "captures", "graphs", "products")
PROMPT = "a small red circle moves to the left"


def counts() -> dict[str, int]:
    values = (ctypes.c_int64 * len(COUNTERS))()
    ctypes.CDLL("libcudart.so.13").pretended_counts(values)
    return dict(zip(COUNTERS, values, strict=True))


def asked(then: dict[str, int], now: dict[str, int]) -> dict[str, int]:
    return {name: now[name] - then[name] for name in COUNTERS if now[name] != then[name]}


def watched(export: str, policy: str) -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        pipe = load(read(policy), export, provider="cuda", allow_unsigned=True)
    before = counts()
    made = pipe.generate(PROMPT)
    first = asked(before, counts())
    embeddings, noise, denoiser = pipe.encode([PROMPT]), pipe.noise(0), pipe.denoiser(1)
    before, after = counts(), list[dict[str, int]]()
    denoiser.run(embeddings, noise, lambda _: after.append(counts()))
    run = asked(before, counts())
    return {
        "frames": made.frames.shape,
        "first": first,
        "run": run,
        "afterTheFirstStep": [asked(then, now) for then, now in pairwise(after)],
        "forwards": sum(denoiser.calls_of.values()),
    }


if __name__ == "__main__":
    export, *policies = sys.argv[1:]
    print(json.dumps([watched(export, policy) for policy in policies]))
