"""An exported model for `budc.compiler.evaluation.parity`: final latents of a prompt, frames of latents."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from budc.schema.errors import BudcError, ParityMismatch
from budc.schema.foreign_error import reason_of

if TYPE_CHECKING:
    from torch import Tensor

    from budc.schema.digest_cache import DigestCache
    from budc.schema.policy import PolicyDocument, Variant


class ConvertedExport:
    """The export in `folder`, of which `variant` lists the files, under `document`, which need not list it yet.

    Raises:
        BudcError: see `budc.runtimes.onnxruntime.pipeline.load`.
        ParityMismatch: ONNX Runtime raises while it runs.
    """

    def __init__(
        self, document: PolicyDocument, variant: Variant, folder: Path, digests: DigestCache
    ) -> None:
        import msgspec

        from budc.runtimes.admission.trust import UnsignedWarning
        from budc.runtimes.onnxruntime.pipeline import load

        self._folder = folder
        model = msgspec.structs.replace(document.model, variants=[variant])
        with warnings.catch_warnings():
            # `budc bind` has checked the signature of the policy before.
            warnings.simplefilter("ignore", UnsignedWarning)
            bound_document = msgspec.structs.replace(document, model=model)
            self._pipe = load(bound_document, folder, allow_unsigned=True, digests=digests)

    def latents(self, prompt: str, seed: int) -> Tensor:
        """Return the final latents (1, …) of a prompt, float32."""
        import torch

        pipe = self._pipe
        with self._runtime_errors():
            latents = pipe.denoising_loop(1).run(pipe.encode([prompt]), pipe.noise(seed))
        return torch.from_numpy(latents)

    def frames(self, latents: Tensor) -> Tensor:
        """Return the frames (1, 3, F, H, W) of final latents, in 0..1."""
        import torch

        with self._runtime_errors():
            return torch.from_numpy(self._pipe.decode(latents.numpy())).permute(0, 4, 1, 2, 3)

    @contextlib.contextmanager
    def _runtime_errors(self) -> Iterator[None]:
        try:
            yield
        except BudcError:
            raise
        except Exception as error:  # ONNX Runtime raises nothing narrower.
            raise ParityMismatch(f"{self._folder} fails when it is run: {reason_of(error)}") from error
