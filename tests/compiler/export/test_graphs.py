"""Graphs beside the modules that they came from: what they compute, in either precision."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import numpy as np  # noqa: E402

from budc.compiler.export.components import load_components  # noqa: E402
from budc.compiler.export.graphs import tensor_specs, to_graph  # noqa: E402
from budc.compiler.export.onnx import export_onnx  # noqa: E402
from budc.compiler.export.parity import check_graph_parity  # noqa: E402
from budc.compiler.export.sources import GraphSource  # noqa: E402
from budc.policies.profile import find_weights, load_profile  # noqa: E402
from budc.runtimes.exported.folder import describe_export  # noqa: E402
from budc.schema.errors import ParityMismatch  # noqa: E402

PROFILE = load_profile("wan2.1-nano")
PROMPTS = ("a small red circle moves left over stripes", "a big blue box", "")


@pytest.fixture(scope="module")
def half_text(
    wan_folder: Path, save: Callable[[GraphSource, Path], None], tmp_path_factory: pytest.TempPathFactory
) -> tuple[GraphSource, Path]:
    """The text encoder in float16, whose residual stream is in float32: source and graph."""
    source = load_components(wan_folder, PROFILE, torch.float16).text_encoder_source(PROMPTS)
    path = tmp_path_factory.mktemp("half") / "model.onnx"
    save(source, path)
    return source, path


def test_half_precision_graphs_pass_the_checker_and_agree(half_text: tuple[GraphSource, Path]) -> None:
    source, path = half_text
    onnx.checker.check_model(path, full_check=True)
    assert 0 < check_graph_parity(source, path, "float16") < 2e-2


@pytest.mark.slow
def test_half_precision_of_two_encoders(save: Callable[[GraphSource, Path], None], tmp_path: Path) -> None:
    # The last norm of T5 makes what the graph returns, from a residual stream in float32.
    profile = load_profile("flux-nano")
    source = load_components(find_weights(profile, None), profile, torch.float16).text_encoder_source(PROMPTS)
    save(source, tmp_path / "model.onnx")
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)
    outputs = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph.output
    assert [value.name for value in outputs] == ["encoder_hidden_states", "pooled_projections"]
    assert {value.type.tensor_type.elem_type for value in outputs} == {onnx.TensorProto.FLOAT16}
    assert 0 < check_graph_parity(source, tmp_path / "model.onnx", "float16") < 2e-2


def test_half_precision_is_told_from_full(half_text: tuple[GraphSource, Path]) -> None:
    source, path = half_text
    with pytest.raises(ParityMismatch, match="encoder_hidden_states differs"):
        check_graph_parity(source, path, "float32")


@pytest.mark.slow
@pytest.mark.endless
def test_a_whole_export_in_half_precision(wan_folder: Path, tmp_path: Path) -> None:
    result = export_onnx(PROFILE, wan_folder, tmp_path / "half", "float16")
    variant, manifest = describe_export(tmp_path / "half")
    assert variant.name == "onnx-float16"
    dtypes = {spec.name: spec.dtype for spec in manifest.graphs["compute"].inputs}
    assert dtypes["hidden_states"] == "float16"
    assert dtypes["timestep"] == "float32"
    assert {spec.dtype for spec in manifest.graphs["vae_decoder"].inputs} == {"float32"}
    assert result.differences["vae_decoder"] < 1e-4 < result.differences["compute"] < 2e-2


def test_parity_is_the_largest_difference_over_the_largest_value(table: tuple[GraphSource, Path]) -> None:
    source, path = table
    assert check_graph_parity(source, path, "float32") == 0.0
    with torch.no_grad():
        # Only the larger batch reads this row.
        source.module.table[7, 0] += 0.05
    assert check_graph_parity(source, path, "float32") == pytest.approx(0.05 / 1024, rel=1e-2)


@pytest.mark.parametrize("wrong", [1.0, float("nan"), float("inf")])
def test_a_graph_that_computes_something_else_is_refused(
    table: tuple[GraphSource, Path], wrong: float
) -> None:
    source, path = table
    with torch.no_grad():
        source.module.table[0, 0] += wrong
    with pytest.raises(ParityMismatch, match=r"model\.onnx"):
        check_graph_parity(source, path, "float32")


def test_damaged_weights_do_not_pass(table: tuple[GraphSource, Path]) -> None:
    source, path = table
    data = path.with_suffix(".onnx.data")
    content = np.frombuffer(data.read_bytes(), np.float32).copy()
    content[5] = -content[5] - 100
    data.write_bytes(content.tobytes())
    with pytest.raises(ParityMismatch):
        check_graph_parity(source, path, "float32")


def test_batches_are_dynamic(table: tuple[GraphSource, Path]) -> None:
    source, _ = table
    assert [spec.shape for spec in tensor_specs(list(to_graph(source).graph.inputs))] == [
        [None, 4],
        [None, 4],
    ]


def test_the_exporter_puts_loggers_back_and_prints_nothing(
    table: tuple[GraphSource, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    to_graph(table[0])
    assert logger.level == level
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
