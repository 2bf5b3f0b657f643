"""Sessions: the graphs of one denoiser, opened when they are first needed."""

from pathlib import Path

import onnxruntime as ort

from budc.runtimes.exported.manifest import GraphName, Manifest
from budc.runtimes.onnxruntime.provider import Provider


class Sessions:
    """The denoiser's graphs of one export, opened when they are first needed and shared by all policies."""

    def __init__(self, folder: Path, manifest: Manifest, provider: Provider) -> None:
        self.manifest = manifest
        self.provider = provider
        self._folder = folder
        self._captured = 0
        self._open: dict[tuple[GraphName, int], ort.InferenceSession] = {}

    def of(self, name: GraphName, batch: int) -> ort.InferenceSession:
        """Return a graph with its shapes fixed for forwards of `batch` samples, all branches together."""
        if (name, batch) not in self._open:
            file = self._folder / self.manifest.graphs[name].file
            self._open[name, batch] = self.provider.open(file, batch=batch, captured=True)
        return self._open[name, batch]

    def next_graph(self) -> int:
        """Return a number for one more CUDA graph, 0 where there are none."""
        self._captured += self.provider.captures
        return self._captured
