"""Sessions of a denoiser's graphs, opened when they are first needed."""

from pathlib import Path

import onnxruntime as ort

from budc.runtimes.admission.exclusive import ExclusiveRun
from budc.runtimes.exported.manifest import Manifest
from budc.runtimes.exported.signatures import GraphName
from budc.runtimes.onnxruntime.provider import Provider


class DenoiserSessions:
    """Sessions of the denoiser's graphs of one export, shared by its denoising loops of every batch size."""

    def __init__(self, folder: Path, manifest: Manifest, provider: Provider) -> None:
        self.manifest = manifest
        self.provider = provider
        self.cuda_graphs = 0
        """How many CUDA graphs were numbered so far."""
        self.exclusive = ExclusiveRun(
            "pipeline",
            "begin it when the first run has ended, not in its on_step, or load the policy a second time",
        )
        """Held by the loop that runs."""
        self._folder = folder
        self._sessions: dict[tuple[GraphName, int], ort.InferenceSession] = {}

    def open(self, name: GraphName, samples: int) -> ort.InferenceSession:
        """Return a session of a graph that runs `samples`, all branches together.

        Only a run that is to be recorded needs fixed shapes, and then a session, with its own copy of the weights, for
        each size. Otherwise one serves all.
        """
        batch = samples if self.provider.captures else 0
        if (name, batch) not in self._sessions:
            file = self._folder / self.manifest.graphs[name].file
            self._sessions[name, batch] = self.provider.open(file, batch=batch, captured=True)
        return self._sessions[name, batch]

    def next_cuda_graph(self) -> int:
        """Return the number of a new CUDA graph, 0 where the provider records none."""
        self.cuda_graphs += self.provider.captures
        return self.cuda_graphs
