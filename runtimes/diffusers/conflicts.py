"""Conflicts: other caches and other policies on a transformer."""

from typing import Any

from budc.runtimes.diffusers.cache_marker import CacheMarker
from budc.schema.errors import CacheConflict

REMOVE_POLICY = "call `.remove()` on what budc.apply returned (or leave the with-block of budc.applied)"
"""How a user removes a policy, for remedies."""


def refuse_other_caches(transformer: Any, own: CacheMarker) -> None:
    """Refuse a transformer that already skips work by another method, or under another policy than that of `own`.

    Two caches on one model would reuse what the other has reused, and no policy was measured so.

    Raises:
        CacheConflict: the library's `enable_cache` is on, another policy is applied, or a stateful or skipping hook of
            the library is registered.
    """
    config = getattr(transformer, "_cache_config", None)
    if getattr(transformer, "is_cache_enabled", False) and config is not own:
        name = type(transformer).__name__
        if isinstance(config, CacheMarker):
            raise CacheConflict(
                f"the policy {config.policy} is applied to this {name} already",
                remedy=f"first {REMOVE_POLICY}",
            )
        raise CacheConflict(
            f"another cache is enabled on {name} ({type(config).__name__})",
            remedy="call transformer.disable_cache() before applying a policy",
        )
    for path, module in transformer.named_modules():
        registry = getattr(module, "_diffusers_hook", None)
        for name, hook in getattr(registry, "hooks", {}).items():
            if getattr(hook, "_is_stateful", False) or "layer_skip" in name:
                raise CacheConflict(
                    f"the hook {name} is registered on {type(transformer).__name__} {path}".rstrip(),
                    remedy="remove that hook before applying a policy",
                )
