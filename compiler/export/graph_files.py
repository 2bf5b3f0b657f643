"""Graph files: sources exported to graphs on disk, with their weights in shared files beside them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import onnx_ir as ir

from budc.compiler.export.graphs import tensor_specs, to_graph
from budc.compiler.export.sources import GraphSource, files_of
from budc.compiler.export.weights import WeightWriter
from budc.progress import Bar
from budc.runtimes.exported.signatures import Graph, GraphName


def write_graphs(sources: Sequence[GraphSource], folder: Path, bar: Bar) -> dict[GraphName, Graph]:
    """Write every graph and every weight file below `folder`; return how each graph is called.

    Raises:
        UnsupportedModel: the exporter cannot express a module.
    """
    graphs: dict[GraphName, Graph] = {}
    writers: dict[str, WeightWriter] = {}
    with ExitStack() as open_files:
        for source in sources:
            _, weight_file = files_of(source.name)
            if weight_file not in writers:
                path = folder / weight_file
                path.parent.mkdir(exist_ok=True)
                writers[weight_file] = WeightWriter(open_files.enter_context(path.open("wb")), path.name)
            graphs[source.name] = _write_graph(source, folder, writers[weight_file])
            bar.advance(f"{source.name} exported")
    return graphs


def _write_graph(source: GraphSource, folder: Path, weights: WeightWriter) -> Graph:
    model = to_graph(source)
    weights.externalize(model)
    file, _ = files_of(source.name)
    ir.save(model, folder / file)
    return Graph(
        file=file,
        inputs=tensor_specs(list(model.graph.inputs)),
        outputs=tensor_specs(list(model.graph.outputs)),
    )
