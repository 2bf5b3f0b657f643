"""A graph source that takes milliseconds to export."""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

import onnx_ir as ir  # noqa: E402

from budc.compiler.export.graphs import to_graph  # noqa: E402
from budc.compiler.export.sources import UNUSED_INPUT, GraphSource  # noqa: E402
from budc.compiler.export.weights import WeightWriter  # noqa: E402


@pytest.fixture(scope="session")
def save() -> Callable[[GraphSource, Path], None]:
    """`save(source, path)` writes the graph of a source, and its weights beside it."""

    def write(source: GraphSource, path: Path) -> None:
        data = path.with_suffix(".onnx.data")
        with data.open("wb") as weights:
            graph = to_graph(source)
            WeightWriter(weights, data.name).externalize(graph)
            ir.save(graph, path)

    return write


@pytest.fixture(scope="session")
def exported_table(
    tmp_path_factory: pytest.TempPathFactory, save: Callable[[GraphSource, Path], None]
) -> tuple[GraphSource, Path]:
    """A text encoder that looks up a table, and its graph, exported once."""

    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.arange(1024.0).reshape(8, 128) + 1)

        def forward(self, input_ids: Any, attention_mask: Any, _pooled: Any) -> Any:
            return self.table[input_ids] * attention_mask[..., None]

    module = Table().eval()
    ids = torch.arange(3 * 4).reshape(3, 4) % 8
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pooled_input_ids": UNUSED_INPUT}
    source = GraphSource("text_encoder", module, inputs, ("encoder_hidden_states",))
    path = tmp_path_factory.mktemp("table") / "model.onnx"
    save(source, path)
    return source, path


@pytest.fixture
def table(exported_table: tuple[GraphSource, Path], tmp_path: Path) -> tuple[GraphSource, Path]:
    """A copy of them, for a test that changes either."""
    source, path = exported_table
    for name in (path.name, path.with_suffix(".onnx.data").name):
        shutil.copy(path.with_name(name), tmp_path / name)
    return copy.deepcopy(source), tmp_path / path.name
