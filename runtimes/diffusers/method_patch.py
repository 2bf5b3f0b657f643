"""Override: one method replaced on one instance, and put back exactly."""

import copy
import functools
from collections.abc import Callable
from typing import Any


class MethodPatch:
    """Puts `replacement` in place of `owner.name`, on this instance only.

    `original` is what was there. A copy or a pickle of the owner holds the owner's own method again: a copy
    belongs to nobody's run.
    """

    def __init__(self, owner: object, name: str, replacement: Callable[..., Any]) -> None:
        self._owner = owner
        self._name = name
        self._replacement = replacement
        self._was_own = name in vars(owner)
        self.original: Callable[..., Any] = getattr(owner, name)
        # Libraries inspect the signatures of set_timesteps and step before they call them.
        functools.update_wrapper(self, self.original)
        # Past __setattr__, which pipelines and modules use to register components.
        vars(owner)[name] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the replacement."""
        return self._replacement(*args, **kwargs)

    def remove(self) -> None:
        """Put back what was there; if someone has wrapped this override since, become transparent instead."""
        self._replacement = self.original
        if vars(self._owner).get(self._name) is not self:
            return
        if self._was_own:
            vars(self._owner)[self._name] = self.original
        else:
            del vars(self._owner)[self._name]

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return copy.deepcopy(self.original, memo)

    def __reduce__(self) -> tuple[Any, ...]:
        return _itself, (self.original,)


def _itself(value: Any) -> Any:
    return value
