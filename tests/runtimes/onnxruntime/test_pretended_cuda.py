"""The ONNX runtime with the CUDA provider on a pretended device: what is captured, and what is copied when."""

import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from budc.compiler.request import CompileRequest
from budc.policies.profile import find_weights, load_profile
from budc.runtimes.testing import BRANCHES, GOLDEN, STEPS
from budc.schema.artifact import read, seal
from budc.schema.policy import PAYLOADS, PolicyDocument

NAMES = ["three terms", "separate branches", "one evaluation"]


@pytest.fixture(scope="module")
def reports(
    pretended_cuda: Any,
    untrained_export: PolicyDocument,
    exported: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[tuple[str, str], Any]:
    """What each policy asked the device for, by name and payload."""
    folder, paths = tmp_path_factory.mktemp("policies"), {}
    for name in NAMES:
        for payload in PAYLOADS:
            document = GOLDEN[name].document(untrained_export)
            policy = msgspec.structs.replace(document.policy, payload=payload)
            path = folder / f"{name} {payload}.budc.json"
            path.write_bytes(seal(msgspec.structs.replace(document, policy=policy), None))
            paths[name, payload] = path
    return dict(zip(paths, pretended_cuda.watch(exported, list(paths.values())), strict=True))


def calls(name: str, payload: str) -> list[int]:
    """How many graphs each step of a policy runs: one a forward, and one for the update after them."""
    groups = BRANCHES if GOLDEN[name].uncond_predictor else BRANCHES[:1]
    forwards = []
    for actions in zip(*(GOLDEN[name].expected(branch) for branch in groups), strict=True):
        forwards.append(sum(action == "C" or payload == "trunk-residual" for action in actions))
    return [count + 1 if count else 0 for count in forwards]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("name", NAMES)
class TestOnCuda:
    def test_a_step_launches_captured_graphs_and_nothing_else(
        self, reports: Any, name: str, payload: str
    ) -> None:
        expected = calls(name, payload)
        launched = reports[name, payload]["afterTheFirstStep"]
        assert launched == [{"graphs": count} if count else {} for count in expected[1:]]
        assert reports[name, payload]["run"]["graphs"] == sum(expected)

    def test_a_run_copies_its_begin_and_its_end(self, reports: Any, name: str, payload: str) -> None:
        run = dict(reports[name, payload]["run"])
        # State, velocities, timestep, hidden states, embeddings and the first interval's end; then the final state.
        assert run.pop("to_device") == 6
        assert run.pop("to_host") == 1
        assert set(run) == {"graphs"}

    def test_all_sessions_of_a_process_run_on_one_stream(self, reports: Any, name: str, payload: str) -> None:
        assert reports[name, payload]["streams"] == 1

    def test_the_first_run_captures(self, reports: Any, name: str, payload: str) -> None:
        first = reports[name, payload]["first"]
        assert 0 < first["captures"] <= 2 * STEPS + 2
        assert first["launches"] > first["graphs"]
        assert reports[name, payload]["frames"] == [5, 64, 64, 3]


@pytest.mark.slow
@pytest.mark.endless
@pytest.mark.parametrize(
    ("model", "dtype"), [("wan2.1-nano", "float16"), ("flux-nano", "float32"), ("flux-nano", "float16")]
)
def test_other_exports_are_captured_whole(
    model: str, dtype: str, pretended_cuda: Any, tmp_path: Path
) -> None:
    from budc.compiler.compile import compile_artifacts
    from budc.compiler.export.onnx import export_onnx
    from budc.runtimes.exported.folder import describe_export

    profile, export = load_profile(model), tmp_path / "export"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export_onnx(profile, find_weights(profile, None), export, dtype)
    request = CompileRequest(model=model, budget="2", steps=4, search="uniform", out=tmp_path / "p.budc.json")
    (path,) = [artifact.path for artifact in compile_artifacts(request.resolve())]
    document = read(path).document
    variants = [*document.model.variants, describe_export(export)[0]]
    binding = msgspec.structs.replace(document.model, variants=variants)
    bound = tmp_path / "bound.budc.json"
    bound.write_bytes(seal(msgspec.structs.replace(document, model=binding), None))
    (report,) = pretended_cuda.watch(export, [bound])
    assert report["afterTheFirstStep"] == [{"graphs": 2}] * 3
    assert report["forwards"] == 4 * len(document.budget.branches)
