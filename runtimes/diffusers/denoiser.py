"""One transformer of a pipeline with a policy's trunk in it, from `install` to `remove`."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn

from torch import nn
from torch.utils.hooks import RemovableHandle

from budc.runtimes.admission.settings import SettingsCheck
from budc.runtimes.diffusers.adapters import AdapterCheck
from budc.runtimes.diffusers.cache_marker import CacheMarker
from budc.runtimes.diffusers.checks import check_unchanged
from budc.runtimes.diffusers.conflicts import REMOVE_POLICY, refuse_other_caches
from budc.runtimes.diffusers.forward_check import ForwardCheck
from budc.runtimes.diffusers.method_patch import MethodPatch
from budc.runtimes.diffusers.model_record import ModelRecord
from budc.runtimes.diffusers.own_layers import ModuleTree, OwnLayers
from budc.runtimes.diffusers.precision import check_weights
from budc.runtimes.sampling.trunk import Trunk
from budc.schema.errors import CacheConflict, RefusedRun
from budc.schema.policy import PolicyDocument


def unwrapped(transformer: Any) -> nn.Module:
    """Return the module itself where `torch.compile(transformer)` has put a wrapper around it."""
    module: nn.Module = getattr(transformer, "_orig_mod", transformer)
    return module


class PolicyDenoiser:
    """The pipeline's component `name` under the policy in `document`."""

    def __init__(self, pipe: Any, name: str, document: PolicyDocument) -> None:
        self.name = name
        self.transformer = unwrapped(getattr(pipe, name))
        self.trunk = Trunk(self.transformer, document.policy.payload)
        self._pipe = pipe
        self._document = document
        self._marker = CacheMarker(document.name)
        self._check_adapters = AdapterCheck(document, name, self.transformer)
        self._patches: list[MethodPatch] = []
        self._hook: RemovableHandle | None = None
        self._record: ModelRecord | None = None
        self._tree: ModuleTree | None = None
        self._is_quantized = any(
            item.quantization is not None for item in document.model.denoisers if item.name == name
        )

    def use(self, document: PolicyDocument) -> None:
        """Go over to another policy for the same model, between two runs."""
        self._document = document
        self._marker.policy = document.name
        self.trunk.use(document.policy.payload)

    @property
    def is_compiled(self) -> bool:
        """Whether the pipeline runs it through `torch.compile`."""
        wrapped = getattr(self._pipe, self.name) is not self.transformer
        return wrapped or bool(self.transformer._compiled_call_impl)

    def install(
        self, cache_context: Callable[..., AbstractContextManager[None]], is_neighbour: Callable[[], bool]
    ) -> None:
        """Install the trunk, and replace the transformer's methods for caches.

        Args:
            cache_context: called with the transformer's own `cache_context` and its arguments.
            is_neighbour: called before each forward of a run, to refuse one of another pipeline.

        Raises:
            CacheConflict: another cache or another policy is on the transformer.
        """
        refuse_other_caches(self.transformer, self._marker)
        self.trunk.install()
        self._marker.install(self.transformer)
        methods: dict[str, Callable[..., Any]] = {
            "cache_context": cache_context,
            "enable_cache": self._enable_cache,
            "disable_cache": self._disable_cache,
        }
        self._patches = [
            MethodPatch(self.transformer, name, replacement)
            for name, replacement in methods.items()
            if hasattr(self.transformer, name)
        ]
        self._record = ModelRecord(OwnLayers(self.transformer))
        self._hook = self.transformer.register_forward_pre_hook(
            ForwardCheck(self.trunk, is_neighbour), with_kwargs=True
        )

    def remove(self) -> None:
        """Put the transformer back as it was before `install`; calling it again does nothing."""
        for patch in reversed(self._patches):
            patch.remove()
        self._patches = []
        if self._hook is not None:
            self._hook.remove()
            self._hook = None
        self._record = self._tree = None
        self._marker.remove(self.transformer)
        self.trunk.uninstall()

    def check(self, settings: SettingsCheck) -> None:
        """Check the transformer as it is at the beginning of a run.

        Raises:
            RefusedRun: the pipeline has another transformer since, or the transformer other blocks.
            CacheConflict: another cache was put on it.
            CalibrationMismatch: its precision or its adapters are not the calibrated ones, or it has changed since
                `install`.
        """
        if unwrapped(getattr(self._pipe, self.name)) is not self.transformer:
            raise RefusedRun(
                f"pipe.{self.name} is another one than the policy was applied to",
                remedy=f"{REMOVE_POLICY}, then apply the policy to the new transformer",
            )
        if not self.trunk.is_installed:
            raise RefusedRun(
                "the transformer's block list was replaced since the policy was applied",
                remedy=f"{REMOVE_POLICY}, change the transformer, then apply the policy again",
            )
        refuse_other_caches(self.transformer, self._marker)
        layers = OwnLayers(self.transformer, self._tree)
        self._tree = layers.tree
        check_weights(
            self._document.pipeline().shape.dtype,
            self.transformer,
            layers,
            settings,
            quantized=self._is_quantized,
        )
        self._check_adapters(settings)
        if self._record is not None:
            check_unchanged(self._document, self.name, self._record, layers, settings)

    def _enable_cache(self, _original: object, config: Any) -> NoReturn:
        raise CacheConflict(
            f"{type(config).__name__}: a policy is applied to this transformer",
            remedy=f"{REMOVE_POLICY} before enabling another cache",
        )

    def _disable_cache(self, _original: object) -> NoReturn:
        raise CacheConflict(
            f"the cache of this transformer is the policy {self._document.name}, which disable_cache cannot remove",
            remedy=REMOVE_POLICY,
        )
