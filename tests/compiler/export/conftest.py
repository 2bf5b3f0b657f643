"""A form that takes milliseconds to export, beside the whole pipeline's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from budc.compiler.export.graphs import to_graph  # noqa: E402
from budc.compiler.export.modules import UNUSED, ExportModule  # noqa: E402
from budc.compiler.export.weights import WeightFile, save_graph  # noqa: E402


@pytest.fixture(scope="session")
def save() -> Callable[[ExportModule, Path], None]:
    """Write the graph of a form, its weights beside it: `save(form, path)`."""

    def write(form: ExportModule, path: Path) -> None:
        data = path.with_suffix(".onnx.data")
        with data.open("wb") as weights:
            graph = to_graph(form)
            WeightFile(weights, data.name).take(graph)
            save_graph(graph, path)

    return write


@pytest.fixture
def table(tmp_path: Path, save: Callable[[ExportModule, Path], None]) -> tuple[ExportModule, Path]:
    """A text encoder that looks up a table, and its graph."""

    class Table(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.arange(1024.0).reshape(8, 128) + 1)

        def forward(self, input_ids: Any, attention_mask: Any, _pooled: Any) -> Any:
            return self.table[input_ids] * attention_mask[..., None]

    module = Table().eval()
    ids = torch.arange(3 * 4).reshape(3, 4) % 8
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pooled_input_ids": UNUSED}
    form = ExportModule("text_encoder", module, inputs, ("encoder_hidden_states",))
    path = tmp_path / "model.onnx"
    save(form, path)
    return form, path
