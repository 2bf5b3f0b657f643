"""What is checked before a transformer's forward under a policy: whose forward it is, and its inputs."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import torch
from torch import nn

from budc.runtimes.sampling.trunk import Trunk


class ForwardCheck:
    """Forward pre-hook of a transformer; the inputs of a plain forward pass unchecked.

    `is_neighbour` notes a forward of another pipeline, and refuses it during a run under the policy. In a compiled
    graph it is not called, as it reads the stack; pipelines call `cache_context` before.
    A copy of the hook checks nothing: a copied transformer has no policy.
    """

    def __init__(self, trunk: Trunk | None = None, is_neighbour: Callable[[], bool] | None = None) -> None:
        self._trunk = trunk
        self._is_neighbour = is_neighbour
        self._names = tuple(signature(type(trunk.transformer).forward).parameters)[1:] if trunk else ()

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Check a forward that computes or reuses under the policy.

        Raises:
            RefusedRun: another pipeline is calling while a run is under way.
            UnsupportedModel: an input enters between the blocks (ControlNet).
        """
        if self._is_neighbour is not None and not torch.compiler.is_compiling():
            self._is_neighbour()
        if self._trunk is None or self._trunk.gate.mode == "off":
            return
        self._trunk.check_inputs(dict(zip(self._names, args, strict=False)) | kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Reduce to a hook without a trunk."""
        return ForwardCheck, ()
