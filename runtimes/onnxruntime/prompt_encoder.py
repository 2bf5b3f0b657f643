"""The prompt encoder: prompts to embeddings, for every guidance branch of a run."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from budc.runtimes.exported.manifest import Manifest
from budc.runtimes.onnxruntime.provider import Provider
from budc.runtimes.onnxruntime.tokenizer import PromptTokenizer


class PromptEncoder:
    """The tokenizers and text encoders of one export."""

    def __init__(self, folder: Path, manifest: Manifest, provider: Provider) -> None:
        self._folder, self._manifest, self._provider = folder, manifest, provider
        self._tokenize = PromptTokenizer(folder, manifest.text)
        pooled = manifest.pooled_text
        self._tokenize_pooled = None if pooled is None else PromptTokenizer(folder, pooled)

    def __call__(self, prompts: Sequence[str], branches: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        """Return the denoiser's embeddings of N prompts by name, (branches · N, ...) each, branch after branch."""
        negative = self._manifest.negative_prompt
        texts = [negative if branch == "uncond" else prompt for branch in branches for prompt in prompts]
        ids, mask = self._tokenize(texts)
        tokens = {"input_ids": ids, "attention_mask": mask}
        if self._tokenize_pooled is not None:
            tokens["pooled_input_ids"], _ = self._tokenize_pooled(texts)
        graph = self._manifest.graphs["text_encoder"]
        inputs = {spec.name: tokens[spec.name] for spec in graph.inputs}
        session = self._session
        with self._provider.run_turn():
            embeddings = session.run(None, inputs)
        return dict(zip([spec.name for spec in graph.outputs], embeddings, strict=True))

    @cached_property
    def _session(self) -> ort.InferenceSession:
        return self._provider.open(self._folder / self._manifest.graphs["text_encoder"].file)
