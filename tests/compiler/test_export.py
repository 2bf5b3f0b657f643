import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")

import numpy as np  # noqa: E402
import onnx_ir as ir  # noqa: E402

import budc.compiler.export.export as exports  # noqa: E402
from budc.compiler.export.export import export_onnx  # noqa: E402
from budc.compiler.export.forms import FILES, SAMPLES, UNUSED, WEIGHTS, Form  # noqa: E402
from budc.compiler.export.graphs import OPSET, specs, to_graph  # noqa: E402
from budc.compiler.export.parity import check_parity  # noqa: E402
from budc.compiler.export.parts import load_parts  # noqa: E402
from budc.compiler.export.weights import ALIGNMENT, INLINE, WeightFile, save_graph  # noqa: E402
from budc.policies.profile import load_profile, read_prompts  # noqa: E402
from budc.runtimes.manifest import MANIFEST, TERMS, read_manifest  # noqa: E402
from budc.runtimes.onnx_folder import describe_export  # noqa: E402
from budc.schema.errors import OutputError, ParityMismatch, UnsafeWeights, UnsupportedModel  # noqa: E402

PROFILE = load_profile("wan2.1-nano")
PROMPTS = ("a small red circle moves left over stripes", "a big blue box", "")
DENOISER = ("compute", "reuse", "reuse_terms")


def graph_of(folder: Path, name: Any) -> Any:
    return onnx.load(folder / FILES[name], load_external_data=False)


def outside(model: Any) -> dict[str, tuple[int, int]]:
    """Name → (offset, length) of the weights that lie outside of a graph."""
    entries = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    }
    return {name: (int(entry["offset"]), int(entry["length"])) for name, entry in entries.items()}


# What an export holds ------------------------------------------------------------------------------------


def test_an_export_is_one_that_runtimes_open(exported: Path) -> None:
    variant, manifest = describe_export(exported)
    assert variant.name == "onnx-float32"
    assert set(variant.files) == {
        str(path.relative_to(exported)) for path in exported.rglob("*") if path.is_file()
    }
    assert manifest.opset == OPSET >= 20
    assert manifest.latents == [16, 3, 8, 8]
    assert manifest.text.tokens == PROFILE.text_tokens
    assert manifest.branches == list(PROFILE.branches)


@pytest.mark.parametrize("name", FILES)
def test_graphs_pass_the_checker_and_have_no_control_flow(exported: Path, name: Any) -> None:
    onnx.checker.check_model(exported / FILES[name], full_check=True)
    operators = {node.op_type for node in graph_of(exported, name).graph.node}
    assert not operators & {"If", "Loop", "Scan"}


@pytest.mark.parametrize("name", FILES)
def test_graphs_do_not_say_where_they_were_made(exported: Path, name: Any) -> None:
    content = (exported / FILES[name]).read_bytes()
    for trace in (b"site-packages", b'File "', str(exported.parent).encode(), str(Path.cwd()).encode()):
        assert trace not in content


def test_the_denoisers_graphs_share_one_weight_file(exported: Path, wan_folder: Path) -> None:
    weights = exported / WEIGHTS["compute"]
    assert {WEIGHTS[name] for name in DENOISER} == {WEIGHTS["compute"]}
    places = {name: outside(graph_of(exported, name)) for name in DENOISER}
    assert places["reuse"]
    # A reused step needs nothing that a computed one does not.
    for name in ("reuse", "reuse_terms"):
        assert set(places[name].values()) <= set(places["compute"].values())
    contents = [weights.read_bytes()[first : first + size] for first, size in set(places["compute"].values())]
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
        session = onnxruntime.InferenceSession(exported / FILES[name], providers=["CPUExecutionProvider"])
        taken = {value.name for value in session.get_inputs()}
        return session.run(None, {key: value for key, value in {**given, **more}.items() if key in taken})[0]

    combined = sum(c * r for c, r in zip(coefficients, residuals, strict=True))
    named = {f"residual_{index}": residual for index, residual in enumerate(residuals)}
    together = run("reuse_terms", coefficients=coefficients, **named)
    np.testing.assert_allclose(together, run("reuse", residual=combined), rtol=0, atol=1e-5)
    assert not np.allclose(together, run("reuse", residual=residuals[0]), atol=1e-2)


def test_the_same_model_gives_the_same_files(
    exported: Path, wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The two that take longest to export say no more about it than the others do.
    short = {name: file for name, file in FILES.items() if name in ("reuse", "text_encoder")}
    for name, file in short.items():
        form = next(form for form in forms_of(wan_folder) if form.name == name)
        path = tmp_path / file
        path.parent.mkdir()
        with (tmp_path / WEIGHTS[name]).open("wb") as weights:
            graph = to_graph(form)
            WeightFile(weights, Path(WEIGHTS[name]).name).take(graph)
            save_graph(graph, path)
        mine, theirs = (onnx.load(folder / file, load_external_data=True) for folder in (tmp_path, exported))
        for model in (mine, theirs):
            for tensor in model.graph.initializer:
                # Where a tensor lies depends on the graphs that share the file.
                tensor.ClearField("external_data")
        assert mine.SerializeToString() == theirs.SerializeToString()


def forms_of(folder: Path) -> list[Form]:
    from budc.compiler.model import load_model

    model = load_model(PROFILE, folder, torch.device("cpu"))
    parts = load_parts(folder, PROFILE, torch.float32)
    latents = model.adapter.noise(folder, PROFILE, range(SAMPLES))
    return list(exports._forms(model, parts, latents, PROMPTS))


def save(form: Form, path: Path) -> None:
    """Write the graph of a form, its weights beside it."""
    data = path.with_suffix(".onnx.data")
    with data.open("wb") as weights:
        graph = to_graph(form)
        WeightFile(weights, data.name).take(graph)
        save_graph(graph, path)


# float16 -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half_text(wan_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Form, Path]:
    """The text encoder in float16, whose residual stream is in float32: form and graph."""
    form = load_parts(wan_folder, PROFILE, torch.float16).text_form(PROMPTS)
    path = tmp_path_factory.mktemp("half") / "model.onnx"
    save(form, path)
    return form, path


def test_half_precision_graphs_pass_the_checker_and_agree(half_text: tuple[Form, Path]) -> None:
    form, path = half_text
    onnx.checker.check_model(path, full_check=True)
    assert 0 < check_parity(form, path, "float16") < 2e-2


def test_half_precision_is_told_from_full(half_text: tuple[Form, Path]) -> None:
    form, path = half_text
    with pytest.raises(ParityMismatch, match="encoder_hidden_states differs"):
        check_parity(form, path, "float32")


@pytest.mark.slow
def test_a_whole_export_in_half_precision(wan_folder: Path, tmp_path: Path) -> None:
    made = export_onnx(PROFILE, wan_folder, tmp_path / "half", "float16")
    variant, manifest = describe_export(tmp_path / "half")
    assert variant.name == "onnx-float16"
    dtypes = {spec.name: spec.dtype for spec in manifest.graphs["compute"].inputs}
    assert dtypes["hidden_states"] == "float16"
    assert dtypes["timestep"] == "float32"
    assert {spec.dtype for spec in manifest.graphs["vae_decoder"].inputs} == {"float32"}
    assert made.differences["vae_decoder"] < 1e-4 < made.differences["compute"] < 2e-2


# Parity --------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> tuple[Form, Path]:
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
    form = Form("text_encoder", module, inputs, ("encoder_hidden_states",))
    path = tmp_path / "model.onnx"
    save(form, path)
    return form, path


def test_parity_is_the_largest_difference_over_the_largest_value(table: tuple[Form, Path]) -> None:
    form, path = table
    assert check_parity(form, path, "float32") == 0.0
    with torch.no_grad():
        # Only the larger batch reads this row.
        form.module.table[7, 0] += 0.05
    assert check_parity(form, path, "float32") == pytest.approx(0.05 / 1024, rel=1e-2)


@pytest.mark.parametrize("wrong", [1.0, float("nan"), float("inf")])
def test_a_graph_that_computes_something_else_is_refused(table: tuple[Form, Path], wrong: float) -> None:
    form, path = table
    with torch.no_grad():
        form.module.table[0, 0] += wrong
    with pytest.raises(ParityMismatch, match=r"model\.onnx"):
        check_parity(form, path, "float32")


def test_damaged_weights_do_not_pass(table: tuple[Form, Path]) -> None:
    form, path = table
    data = path.with_suffix(".onnx.data")
    content = np.frombuffer(data.read_bytes(), np.float32).copy()
    content[5] = -content[5] - 100
    data.write_bytes(content.tobytes())
    with pytest.raises(ParityMismatch):
        check_parity(form, path, "float32")


def test_batches_are_dynamic(table: tuple[Form, Path]) -> None:
    form, _ = table
    assert [spec.shape for spec in specs(list(to_graph(form).graph.inputs))] == [[None, 4], [None, 4]]


# Weight files --------------------------------------------------------------------------------------------


def model_with(**tensors: Any) -> ir.Model:
    values = [ir.Value(name=name, const_value=ir.tensor(array, name=name)) for name, array in tensors.items()]
    graph = ir.Graph([], [], nodes=[], initializers=values, opset_imports={"": OPSET})
    return ir.Model(graph, ir_version=10)


def test_equal_tensors_are_written_once_whichever_graph_and_shape_they_have() -> None:
    a, b = np.arange(1000, dtype=np.float32), np.arange(1000, dtype=np.float32) + 1
    first, second = model_with(a=a, b=b), model_with(c=a.reshape(10, 100), small=a[:4])
    file = io.BytesIO()
    weights = WeightFile(file, "weights.onnx.data")
    weights.take(first)
    weights.take(second)
    assert len(file.getvalue()) == ALIGNMENT + a.nbytes
    shared = second.graph.initializers["c"].const_value
    assert isinstance(shared, ir.ExternalTensor)
    assert (shared.offset, shared.length, list(shared.shape)) == (0, a.nbytes, [10, 100])
    moved = first.graph.initializers["b"].const_value
    assert isinstance(moved, ir.ExternalTensor)
    assert moved.offset == ALIGNMENT
    assert file.getvalue()[ALIGNMENT:] == b.tobytes()
    assert not isinstance(second.graph.initializers["small"].const_value, ir.ExternalTensor)
    assert a[:4].nbytes <= INLINE


def test_equal_bytes_of_another_type_are_another_tensor() -> None:
    a = np.zeros(1000, np.float32)
    file = io.BytesIO()
    WeightFile(file, "weights.onnx.data").take(model_with(a=a, b=a.view(np.int32)))
    assert len(file.getvalue()) == ALIGNMENT + a.nbytes


# Tokenizer -----------------------------------------------------------------------------------------------


def test_the_tokenizer_alone_makes_the_pipelines_tokens(exported: Path, wan_folder: Path) -> None:
    from tokenizers import Tokenizer

    parts = load_parts(wan_folder, PROFILE, torch.float32)
    rule = read_manifest(exported).text
    alone = Tokenizer.from_file(str(exported / rule.tokenizer))
    texts = [*read_prompts(PROFILE.prompts.held_out, 8), "", "Ünïcode & ½", "red " * 100]
    ids, _ = parts.tokenizer.ids(texts)
    alone.enable_truncation(rule.tokens)
    alone.enable_padding(length=rule.tokens, pad_id=rule.padding_id, pad_token=rule.padding_token)
    assert [encoded.ids for encoded in alone.encode_batch(texts)] == ids.tolist()
    assert rule.end_id == 1
    assert ids[-1, -1] == rule.end_id


def test_a_tokenizer_that_reads_otherwise_alone_is_refused(wan_folder: Path, tmp_path: Path) -> None:
    class Other:
        """A tokenizer that is not what its backend is."""

        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            made = self.inner(*args, **kwargs)
            made["input_ids"] += 1
            return made

    own = load_parts(wan_folder, PROFILE, torch.float32).tokenizer
    with pytest.raises(ParityMismatch, match=r"tokenizer\.json"):
        own._replace(tokenizer=Other(own.tokenizer)).save(tmp_path, PROMPTS)


# Failing -------------------------------------------------------------------------------------------------


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an export consist of the text encoder alone, which takes seconds."""
    everything = exports._forms
    monkeypatch.setattr(
        exports, "_forms", lambda *args: [form for form in everything(*args) if form.name == "text_encoder"]
    )


def test_an_export_that_fails_its_parity_leaves_nothing(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)

    def damaged(form: Form) -> ir.Model:
        model = to_graph(form)
        with torch.no_grad():
            form.module.encoder.encoder.final_layer_norm.weight.mul_(1.5)
        return model

    monkeypatch.setattr(exports, "to_graph", damaged)
    with pytest.raises(ParityMismatch, match=r"model\.onnx"):
        export_onnx(PROFILE, wan_folder, tmp_path / "out", "float32")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_the_checker_refuses_leaves_nothing(
    wan_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)

    def broken(form: Form) -> ir.Model:
        model = to_graph(form)
        next(node for node in model.graph if node.op_type == "MatMul").op_type = "Steal"
        return model

    monkeypatch.setattr(exports, "to_graph", broken)
    with pytest.raises(UnsafeWeights, match=r"onnx\.checker"):
        export_onnx(PROFILE, wan_folder, tmp_path / "out", "float32")
    assert list(tmp_path.iterdir()) == []


def test_what_exists_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists"):
        export_onnx(PROFILE, tmp_path / "no-model", tmp_path / "out", "float32")


def test_another_pipeline_is_refused(wan_folder: Path) -> None:
    with pytest.raises(UnsupportedModel, match="ZImagePipeline"):
        load_parts(
            wan_folder, msgspec.structs.replace(PROFILE, pipeline_class="ZImagePipeline"), torch.float32
        )


def test_the_exporter_puts_loggers_back_and_prints_nothing(
    table: tuple[Form, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    to_graph(table[0])
    assert logger.level == level
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_the_manifest_lists_what_is_there(exported: Path, tmp_path: Path) -> None:
    written = json.loads((exported / MANIFEST).read_text())
    assert written["files"].keys() == read_manifest(exported).files.keys()
    copy = tmp_path / "copy"
    shutil.copytree(exported, copy)
    assert describe_export(copy) == describe_export(exported)
