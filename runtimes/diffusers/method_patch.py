"""One method replaced on one instance, and put back exactly."""

import copy
import functools
from collections.abc import Callable
from typing import Any


class MethodPatch:
    """Replaces the method `owner.name`, on this instance only, by `replacement(original, *args, **kwargs)`.

    `original` is the method that was there. A copy or a pickle of the owner has the original method again: a copy
    has no policy.
    """

    def __init__(self, owner: object, name: str, replacement: Callable[..., Any]) -> None:
        self._owner = owner
        self._name = name
        self._replacement: Callable[..., Any] | None = replacement
        self._was_own = name in vars(owner)
        self.original: Callable[..., Any] = getattr(owner, name)
        # Libraries inspect the signatures of set_timesteps and step before they call them.
        functools.update_wrapper(self, self.original)
        # Not by setattr: pipelines and modules register components in __setattr__.
        vars(owner)[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the replacement; after `remove`, the original."""
        if self._replacement is None:
            return self.original(*args, **kwargs)
        return self._replacement(self.original, *args, **kwargs)

    def remove(self) -> None:
        """Put the original back. Where someone has wrapped this patch since, only pass calls through."""
        self._replacement = None
        if vars(self._owner).get(self._name) is not self:
            return
        if self._was_own:
            vars(self._owner)[self._name] = self.original
        else:
            del vars(self._owner)[self._name]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.original, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _identity, (self.original,)


def _identity(value: Any) -> Any:
    return value
