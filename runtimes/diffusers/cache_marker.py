"""diffusers' own flag: `transformer.is_cache_enabled` is true while a policy is applied."""

from typing import Any

_FIELD = "_cache_config"
"""Where diffusers' `CacheMixin` keeps the configuration of the cache that is enabled; None means no cache."""


class CacheMarker:
    """Takes the place of a cache configuration on one transformer, where its class has one.

    It tells our own cache from another one. A copy or a pickle of it is None: a copied transformer has no policy.
    """

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self._was_own = False

    def install(self, transformer: Any) -> None:
        """Make `is_cache_enabled` true; the transformer has no other cache."""
        if hasattr(type(transformer), _FIELD):
            self._was_own = _FIELD in vars(transformer)
            vars(transformer)[_FIELD] = self

    def remove(self, transformer: Any) -> None:
        """Undo `install`; do nothing where it was not called, or where something else has taken the field since."""
        if vars(transformer).get(_FIELD) is not self:
            return
        if self._was_own:
            vars(transformer)[_FIELD] = None
        else:
            del vars(transformer)[_FIELD]

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        return None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()
