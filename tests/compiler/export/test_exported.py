"""What an export holds, and what is left of one that fails."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tiny_folders import export_profile

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import numpy as np  # noqa: E402
import onnx_ir as ir  # noqa: E402

import budc.compiler.export.onnx as exports  # noqa: E402
from budc.compiler.export import graph_files  # noqa: E402
from budc.compiler.export.components import load_components  # noqa: E402
from budc.compiler.export.graphs import OPSET, to_graph  # noqa: E402
from budc.compiler.export.onnx import export_onnx  # noqa: E402
from budc.compiler.export.sources import EXAMPLES, GRAPH_FILES, WEIGHT_FILES, GraphSource  # noqa: E402
from budc.compiler.export.weights import ALIGNMENT, WeightWriter  # noqa: E402
from budc.runtimes.exported.folder import describe_export  # noqa: E402
from budc.runtimes.exported.manifest import MANIFEST, read_manifest  # noqa: E402
from budc.runtimes.exported.signatures import TERMS  # noqa: E402
from budc.schema.errors import OutputError, ParityMismatch, UnsafeWeights, UnsupportedModel  # noqa: E402

PROFILE = export_profile()
PROMPTS = ("a small red circle moves left over stripes", "a big blue box", "")
DENOISER = ("compute", "reuse", "reuse_terms")


def graph_of(folder: Path, name: Any) -> Any:
    return onnx.load(folder / GRAPH_FILES[name], load_external_data=False)


def outside(model: Any) -> dict[str, tuple[int, int]]:
    """Name → (offset, length) of the weights that lie outside of a graph."""
    entries = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    }
    return {name: (int(entry["offset"]), int(entry["length"])) for name, entry in entries.items()}


def test_an_export_is_one_that_runtimes_open(exported: Path) -> None:
    variant, manifest = describe_export(exported)
    assert variant.name == "onnx-float32"
    assert set(variant.files) == {
        str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()
    }
    assert manifest.opset == OPSET >= 20
    assert manifest.latents == [16, 2, 8, 8]
    assert manifest.text.tokens == PROFILE.text_tokens
    assert manifest.branches == list(PROFILE.branches)


@pytest.mark.parametrize("name", GRAPH_FILES)
def test_graphs_pass_the_checker_and_have_no_control_flow(exported: Path, name: Any) -> None:
    onnx.checker.check_model(exported / GRAPH_FILES[name], full_check=True)
    operators = {node.op_type for node in graph_of(exported, name).graph.node}
    assert not operators & {"If", "Loop", "Scan"}


@pytest.mark.parametrize("name", GRAPH_FILES)
def test_graphs_do_not_say_where_they_were_made(exported: Path, name: Any) -> None:
    content = (exported / GRAPH_FILES[name]).read_bytes()
    for trace in (b"site-packages", b'File "', str(exported.parent).encode(), str(Path.cwd()).encode()):
        assert trace not in content


def test_the_denoisers_graphs_share_one_weight_file(exported: Path, wan_folder: Path) -> None:
    weights = exported / WEIGHT_FILES["compute"]
    assert {WEIGHT_FILES[name] for name in DENOISER} == {WEIGHT_FILES["compute"]}
    ranges = {name: outside(graph_of(exported, name)) for name in DENOISER}
    assert ranges["reuse"]
    # A reused step needs nothing that a computed one does not.
    for name in ("reuse", "reuse_terms"):
        assert set(ranges[name].values()) <= set(ranges["compute"].values())
    contents = [weights.read_bytes()[first : first + size] for first, size in set(ranges["compute"].values())]
    assert len(set(contents)) == len(contents), "a tensor is stored twice"
    original = sum(path.stat().st_size for path in (wan_folder / "transformer").glob("*.safetensors"))
    assert weights.stat().st_size <= original + len(contents) * ALIGNMENT


def test_a_reused_step_does_no_block(exported: Path) -> None:
    nodes = {name: graph_of(exported, name).graph.node for name in DENOISER}
    assert len(nodes["reuse"]) < 40 < len(nodes["compute"])
    for name in ("reuse", "reuse_terms"):
        assert not {node.op_type for node in nodes[name]} & {"Attention", "Softmax"}


def test_an_input_that_is_not_used_is_left_out(exported: Path) -> None:
    graphs = read_manifest(exported).graphs
    assert [spec.name for spec in graphs["reuse"].inputs] == ["hidden_states", "timestep", "residual"]
    assert [spec.name for spec in graphs["compute"].inputs][-1] == "encoder_hidden_states"


def test_reuse_terms_predicts_as_the_step_machine_does(exported: Path) -> None:
    manifest = read_manifest(exported)
    rng = np.random.default_rng(0)
    shapes = {
        spec.name: [2 if n is None else n for n in spec.shape] for spec in manifest.graphs["reuse"].inputs
    }
    given = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    residuals = [rng.standard_normal(shapes["residual"]).astype(np.float32) for _ in range(TERMS)]
    coefficients = np.array([1.5, -0.75, 0.25], np.float32)

    def run(name: Any, **more: Any) -> Any:
        session = onnxruntime.InferenceSession(
            exported / GRAPH_FILES[name], providers=["CPUExecutionProvider"]
        )
        taken = {value.name for value in session.get_inputs()}
        return session.run(None, {key: value for key, value in {**given, **more}.items() if key in taken})[0]

    combined = sum(c * r for c, r in zip(coefficients, residuals, strict=True))
    named = {f"residual_{index}": residual for index, residual in enumerate(residuals)}
    together = run("reuse_terms", coefficients=coefficients, **named)
    np.testing.assert_allclose(together, run("reuse", residual=combined), rtol=0, atol=1e-5)
    assert not np.allclose(together, run("reuse", residual=residuals[0]), atol=1e-2)


@pytest.mark.slow
def test_the_same_model_gives_the_same_files(
    exported: Path, wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compute and decoder take the longest, and would show nothing that these two do not.
    short = {name: file for name, file in GRAPH_FILES.items() if name in ("reuse", "text_encoder")}
    for name, file in short.items():
        source = next(source for source in sources_of(wan_folder) if source.name == name)
        path = tmp_path / file
        path.parent.mkdir()
        with (tmp_path / WEIGHT_FILES[name]).open("wb") as weights:
            graph = to_graph(source)
            WeightWriter(weights, Path(WEIGHT_FILES[name]).name).externalize(graph)
            ir.save(graph, path)
        mine, theirs = (onnx.load(folder / file, load_external_data=True) for folder in (tmp_path, exported))
        for model in (mine, theirs):
            for tensor in model.graph.initializer:
                # Where a tensor lies depends on the graphs that share the file.
                tensor.ClearField("external_data")
        assert mine.SerializeToString() == theirs.SerializeToString()


def sources_of(folder: Path) -> list[GraphSource]:
    from budc.compiler.models.model import load_model

    model = load_model(PROFILE, folder, torch.device("cpu"))
    components = load_components(folder, PROFILE, torch.float32)
    latents = model.adapter.noise(folder, PROFILE, range(EXAMPLES))
    return list(exports._sources(model, components, latents, PROMPTS))


def test_the_manifest_lists_what_is_there(exported: Path, tmp_path: Path) -> None:
    written = json.loads((exported / MANIFEST).read_text())
    assert written["files"].keys() == read_manifest(exported).files.keys()
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    assert describe_export(copy) == describe_export(exported)


@pytest.fixture
def small_export(
    monkeypatch: pytest.MonkeyPatch, table: tuple[GraphSource, Path], wan_folder: Path, tmp_path: Path
) -> Callable[[Callable[[GraphSource], ir.Model]], None]:
    """Export a model whose only graph is the table's, to `exports/out`, by the given exporter."""

    def export(to_graph: Callable[[GraphSource], ir.Model]) -> None:
        monkeypatch.setattr(exports, "_sources", lambda *_: [table[0]])
        monkeypatch.setattr(graph_files, "to_graph", to_graph)
        export_onnx(PROFILE, wan_folder, tmp_path / "exports" / "out", "float32")

    (tmp_path / "exports").mkdir()
    return export


def test_an_export_that_fails_its_parity_leaves_nothing(small_export: Any, tmp_path: Path) -> None:
    def damaged(source: GraphSource) -> ir.Model:
        model = to_graph(source)
        # Not in place: the graph's weights are the module's.
        source.module.table = torch.nn.Parameter(source.module.table * 1.5)
        return model

    with pytest.raises(ParityMismatch, match=r"model\.onnx"):
        small_export(damaged)
    assert list((tmp_path / "exports").iterdir()) == []


def test_an_export_that_the_checker_refuses_leaves_nothing(small_export: Any, tmp_path: Path) -> None:
    def broken(source: GraphSource) -> ir.Model:
        model = to_graph(source)
        next(node for node in model.graph if node.op_type == "Mul").op_type = "Steal"
        return model

    with pytest.raises(UnsafeWeights, match=r"onnx\.checker"):
        small_export(broken)
    assert list((tmp_path / "exports").iterdir()) == []


def test_what_exists_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists"):
        export_onnx(PROFILE, tmp_path / "no-model", tmp_path / "out", "float32")


def test_another_pipeline_is_refused(wan_folder: Path) -> None:
    with pytest.raises(UnsupportedModel, match="HunyuanVideoPipeline"):
        load_components(
            wan_folder, msgspec.structs.replace(PROFILE, pipeline_class="HunyuanVideoPipeline"), torch.float32
        )
