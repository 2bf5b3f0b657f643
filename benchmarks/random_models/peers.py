"""Other caches on the same pipeline, at as many evaluations: cache-dit's static mask and diffusers' MagCache.

Both run the packages' own code. MagCache decides by a threshold. Here the threshold is infinite, no step is protected,
and the number of steps that it may reuse in a row decides, so that the cost of its mechanism is measured at this NFE.
cache-dit runs at least one leading block at every step. The evaluations that either really made are counted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.hooks import MagCacheConfig

from budc.schema.mask import StepMask


@contextmanager
def cache_dit_mask(pipe: Any, mask: StepMask) -> Iterator[None]:
    """Enable cache-dit with this mask, 1 = compute, for the length of a with-block."""
    import cache_dit  # here, because importing it reconfigures logging

    logging.getLogger("CACHE_DIT").setLevel(logging.ERROR)
    config = cache_dit.DBCacheConfig(
        Fn_compute_blocks=1,
        Bn_compute_blocks=0,
        max_warmup_steps=0,
        num_inference_steps=len(mask),
        steps_computation_mask=[int(compute) for compute in mask],
        steps_computation_policy="static",
    )
    cache_dit.enable_cache(pipe, cache_config=config)
    try:
        yield
    finally:
        cache_dit.disable_cache(pipe)


@contextmanager
def magcache(pipe: Any, mask: StepMask) -> Iterator[None]:
    """Enable MagCache so that it reuses as many steps in a row as a uniform mask of this budget does."""
    config = MagCacheConfig(
        threshold=float("inf"),
        max_skip_steps=round(len(mask) / mask.nfe) - 1,
        retention_ratio=0.0,
        num_inference_steps=len(mask),
        mag_ratios=[1.0] * len(mask),
    )
    pipe.transformer.enable_cache(config)
    try:
        yield
    finally:
        pipe.transformer.disable_cache()


PEERS = {"cache-dit": cache_dit_mask, "MagCache": magcache}


def evaluations(transformer: Any, branches: int, run: Callable[[], object]) -> float:
    """Run, and return how often the blocks ran, in whole transformers a branch."""
    attentions = [
        module
        for name, module in transformer.named_modules()
        if name.rpartition(".")[2] in ("attn", "attn1") and "refiner" not in name
    ]
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    handles = [attention.register_forward_pre_hook(count) for attention in attentions]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return calls / len(attentions) / branches
