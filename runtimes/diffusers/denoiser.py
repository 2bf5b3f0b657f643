"""Armed denoiser: one transformer of a pipeline with a policy's trunk in it, from `arm` to `remove`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.checks import check_adapters, check_dtype
from budc.runtimes.diffusers.conflicts import refuse_other_caches
from budc.runtimes.diffusers.method_patch import MethodPatch
from budc.runtimes.sampling.trunk import Trunk
from budc.schema.errors import CacheConflict, RefusedRun
from budc.schema.policy import Payload, PolicyDocument


def unwrapped(transformer: Any) -> nn.Module:
    """Return the module itself where `torch.compile(transformer)` has put a wrapper around it."""
    module: nn.Module = getattr(transformer, "_orig_mod", transformer)
    return module


class PolicyDenoiser:
    """The pipeline's component `name`; its trunk carries `payload`."""

    def __init__(self, pipe: Any, name: str, payload: Payload) -> None:
        self.name = name
        self.transformer = unwrapped(getattr(pipe, name))
        self.trunk = Trunk(self.transformer, payload)
        self._pipe = pipe
        self._overrides: dict[str, MethodPatch] = {}

    @property
    def is_compiled(self) -> bool:
        """Whether the pipeline runs it through `torch.compile`."""
        wrapped = getattr(self._pipe, self.name) is not self.transformer
        return wrapped or bool(self.transformer._compiled_call_impl)

    def arm(self, cache_context: Callable[..., AbstractContextManager[None]]) -> None:
        """Put the trunk in place, and `cache_context` in place of the transformer's own.

        Raises:
            CacheConflict: another cache or another policy is on the transformer.
        """
        refuse_other_caches(self.transformer)
        self.trunk.install()
        for name, replacement in (("cache_context", cache_context), ("enable_cache", self._enable_cache)):
            if hasattr(self.transformer, name):
                self._overrides[name] = MethodPatch(self.transformer, name, replacement)

    def remove(self) -> None:
        """Leave the transformer as it was before `arm`; calling it again does nothing."""
        for override in reversed(self._overrides.values()):
            override.remove()
        self._overrides.clear()
        self.trunk.uninstall()

    def cache_context(self, name: str, **kwargs: Any) -> AbstractContextManager[None]:
        """Enter what the transformer itself does for a branch."""
        entered: AbstractContextManager[None] = self._overrides["cache_context"].original(name, **kwargs)
        return entered

    def check(self, document: PolicyDocument, calibration: SettingsCheck) -> None:
        """Judge the transformer as it is at the beginning of a run.

        Raises:
            RefusedRun: it was exchanged since, or its block list was.
            CacheConflict: another cache was put on it.
            CalibrationMismatch: its dtype or its adapters are others than the calibrated ones.
        """
        if unwrapped(getattr(self._pipe, self.name)) is not self.transformer:
            raise RefusedRun(
                f"pipe.{self.name} is another one than the policy was applied to",
                remedy="remove the handle and apply the policy to the new transformer",
            )
        if not self.trunk.is_installed:
            raise RefusedRun(
                "the transformer's block list was replaced since the policy was applied",
                remedy="remove the handle, change the transformer, then apply the policy again",
            )
        refuse_other_caches(self.transformer)
        check_dtype(document, self.transformer, calibration)
        check_adapters(document, self.transformer, calibration)

    def _enable_cache(self, config: Any) -> None:
        raise CacheConflict(
            f"{type(config).__name__}: a policy is applied to this transformer",
            remedy="remove the policy's handle before enabling another cache",
        )
