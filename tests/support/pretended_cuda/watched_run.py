"""Run policies on an export with the CUDA provider, and print what it asked the device for; see `__init__.py`.

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

COUNTERS = (
    "launches",
    "to_device",
    "to_host",
    "within",
    "allocations",
    "captures",
    "graphs",
    "products",
    "streams",
)
PROMPT = "a small red circle moves to the left"


def counts() -> dict[str, int]:
    values = (ctypes.c_int64 * len(COUNTERS))()
    ctypes.CDLL("libcudart.so.13").pretended_counts(values)
    return dict(zip(COUNTERS, values, strict=True))


def difference(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - before[name] for name in COUNTERS if after[name] != before[name]}


def watched(export: str, policy: str) -> dict[str, object]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsignedWarning)
        pipe = load(read(policy), export, provider="cuda", allow_unsigned=True)
    before = counts()
    generation = pipe.generate(PROMPT)
    first = difference(before, counts())
    embeddings, noise, loop = pipe.encode([PROMPT]), pipe.noise(0), pipe.denoising_loop(1)
    before, after_steps = counts(), list[dict[str, int]]()
    loop.run(embeddings, noise, lambda _: after_steps.append(counts()))
    run = difference(before, counts())
    return {
        "frames": generation.frames.shape,
        "first": first,
        "run": run,
        "afterTheFirstStep": [difference(*pair) for pair in pairwise(after_steps)],
        "streams": counts()["streams"],
        "forwards": sum(loop.forwards.values()),
    }


if __name__ == "__main__":
    export, *policies = sys.argv[1:]
    print(json.dumps([watched(export, policy) for policy in policies]))
