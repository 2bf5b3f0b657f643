"""Conflicts: other caches and adapters found on a transformer."""

from typing import Any

from budc.schema.errors import CacheConflict


def refuse_other_caches(transformer: Any) -> None:
    """Refuse a transformer that already skips work by another method.

    Two caches on one model reuse each other's reused output; neither was measured so.

    Raises:
        CacheConflict: the library's `enable_cache` is on, or one of its stateful or skipping hooks is
            registered.
    """
    if getattr(transformer, "is_cache_enabled", False):
        config = type(getattr(transformer, "_cache_config", None)).__name__
        raise CacheConflict(
            f"another cache is enabled on {type(transformer).__name__} ({config})",
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


def active_adapters(transformer: Any) -> tuple[str, ...]:
    """Return the names of the adapters (LoRA) that change the transformer's output now, sorted.

    An adapter counts when a layer has it active and not disabled, or merged into its weights.
    """
    active: set[str] = set()
    for module in transformer.modules():
        if not hasattr(module, "active_adapters") or not hasattr(module, "merged_adapters"):
            continue
        active.update(module.merged_adapters)
        if not module.disable_adapters:
            names = module.active_adapters
            held = getattr(module, "lora_A", None)
            active.update(names if held is None else (name for name in names if name in held))
    return tuple(sorted(active))
