"""An exported model as `budc.compiler.evaluation.parity` wants it: final latents of a prompt, frames of latents."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from budc.schema.errors import BudcError, ParityMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from budc.schema.digest_cache import DigestCache
    from budc.schema.policy import PolicyDocument, Variant


class ConvertedExport:
    """The export `variant` in `folder` under `document`, which need not list it yet.

    Raises:
        BudcError: see `budc.runtimes.onnxruntime.pipeline.load`.
        ParityMismatch: ONNX Runtime fails while it runs.
    """

    def __init__(
        self, document: PolicyDocument, variant: Variant, folder: Path, digests: DigestCache
    ) -> None:
        import msgspec

        from budc.runtimes.onnxruntime.pipeline import UnsignedWarning, load

        self._folder = folder
        model = msgspec.structs.replace(document.model, variants=[variant])
        with warnings.catch_warnings():
            # Who signed the policy was asked before.
            warnings.simplefilter("ignore", UnsignedWarning)
            bound = msgspec.structs.replace(document, model=model)
            self._pipe = load(bound, folder, allow_unsigned=True, digests=digests)

    def latents(self, prompt: str, seed: int) -> Tensor:
        """Return the final latents (1, …) of a prompt, float32."""
        import torch

        pipe = self._pipe
        with self._running():
            return torch.from_numpy(pipe.denoiser(1).run(pipe.encode([prompt]), pipe.noise(seed)))

    def frames(self, latents: Tensor) -> Tensor:
        """Return the frames (1, 3, F, H, W) of final latents, in 0..1."""
        import torch

        with self._running():
            return torch.from_numpy(self._pipe.decode(latents.numpy())).permute(0, 4, 1, 2, 3)

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        try:
            yield
        except BudcError:
            raise
        except Exception as error:  # ONNX Runtime's own errors have no narrower base.
            reason = str(error).splitlines()[0]
            raise ParityMismatch(f"{self._folder} fails when it is run: {reason}") from error
