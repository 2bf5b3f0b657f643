"""Every attack of the corpus gets the error that it is listed with: from the reader, from both runtimes and from the
commands that report on an artifact or run it.
"""

import contextlib
import hashlib
import io
import json
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from attack_corpus.additions import VALID, newer
from attack_corpus.evaluations import evaluation, signed

import budc.schema.errors as errors
from budc.cli import main
from budc.schema.additions import additions
from budc.schema.artifact import open_artifact
from budc.schema.attestation import open_evaluation
from budc.schema.digests import find_variant, tensor_root
from budc.schema.errors import (
    ArtifactError,
    BudcError,
    NotEvaluated,
    UnsafeWeights,
    Unsigned,
    UntrustedKey,
    WrongPayloadType,
)
from budc.schema.trust import Trust

HERE = Path(__file__).parent
EXPECTED: dict[str, dict[str, dict[str, Any]]] = json.loads((HERE / "expected.json").read_text("utf-8"))
ARTIFACTS, WEIGHTS, MODELS = EXPECTED["artifacts"], EXPECTED["weights"], EXPECTED["models"]
TRUST_FILES, EVALUATIONS = EXPECTED["trust-files"], EXPECTED["evaluations"]
MANIFEST = "budc-onnx.json"

Judge = Callable[..., str]
"""Takes an artifact, a trust file, a model folder and whether unsigned is allowed; returns the name of the error."""


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(BudcError) as caught:
        call()
    message = str(caught.value)
    assert message
    assert message.isprintable()
    assert caught.value.remedy
    return type(caught.value).__name__


def test_the_corpus_is_what_the_script_makes(corpus: Path) -> None:
    assert (corpus / "expected.json").read_text() == (HERE / "expected.json").read_text()
    for part in ("artifacts", "evaluations", "trust", "trust-files"):
        names = {path.name for path in (HERE / part).iterdir()}
        assert names == {path.name for path in (corpus / part).iterdir()}
        for name in names:
            assert (HERE / part / name).read_bytes() == (corpus / part / name).read_bytes(), name
    assert sum(len(cases) for cases in EXPECTED.values()) >= 260


def test_what_the_attacks_start_from_is_believed(corpus: Path) -> None:
    artifact = open_artifact(corpus / "valid.budc.json", Trust.load(corpus / "trust" / "default.toml"))
    variants = artifact.document.model.variants
    assert find_variant(corpus / "models" / "good", variants).name == "original"
    weights = corpus / "models" / "good" / "transformer" / "diffusion_pytorch_model.safetensors"
    assert tensor_root([weights]) == artifact.document.model.denoisers[0].tensor_root


def test_what_the_attacks_on_experts_start_from_is_believed(corpus: Path, forge: ModuleType) -> None:
    trust = Trust.load(corpus / "trust" / "default.toml")
    for experts in ([("transformer_2", 4, 3)], [("transformer_2", 2, 3), ("transformer_3", 4, 1)]):
        artifact = open_artifact(forge.policy(forge.shared(*experts)), trust)
        read = artifact.document.sampler.experts
        assert [(expert.denoiser, expert.first_step, expert.guidance) for expert in read] == experts


@pytest.mark.parametrize("name", VALID)
def test_what_the_attacks_on_format_1_1_start_from_is_believed(
    corpus: Path, forge: ModuleType, name: str
) -> None:
    trust = Trust.load(corpus / "trust" / "default.toml")
    document = open_artifact(forge.policy(newer(*VALID[name])), trust).document
    assert (document.schema_version, bool(additions(document))) == ("1.1", name != "nothing new")


# Who judges -----------------------------------------------------------------------------------------------


class WanPipeline:
    """As much of a pipeline as the checks before a run look at."""

    def __init__(self, forge: ModuleType) -> None:
        torch = pytest.importorskip("torch")

        class WanTransformer3DModel(torch.nn.Module):  # type: ignore[misc]
            config = types.MappingProxyType({})

            def __init__(self) -> None:
                super().__init__()
                self.proj = torch.nn.Module()
                for name, data in forge.WEIGHTS.items():
                    values = torch.frombuffer(bytearray(data), dtype=torch.float32)
                    setattr(self.proj, name.split(".")[1], torch.nn.Parameter(values))

        self.transformer = WanTransformer3DModel()
        self.scheduler = SimpleNamespace()


@pytest.fixture(scope="module")
def pipe(forge: ModuleType) -> Any:
    pytest.importorskip("diffusers")
    return WanPipeline(forge)


def by_reader(path: Path, folder: Path, options: dict[str, Any]) -> str:
    def read() -> None:
        find_variant(folder, open_artifact(path, **options).document.model.variants)

    return refusal(read)


def command(*arguments: object) -> tuple[int, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue()


def by_verify(path: Path, folder: Path) -> str:
    # It never passes what is unsigned, so there is nothing to allow.
    code, out = command("verify", path, "--weights", folder, "--json")
    record = json.loads(out)
    assert code == record["exitCode"] == getattr(errors, record["error"]).exit_code
    return str(record["error"])


def by_run(runtime: str, path: Path, folder: Path, unsigned: bool) -> str:
    flags = ["--allow-unsigned"] if unsigned else []
    out = path.parent.parent / "never.png"
    code, _ = command(
        "run", path, "--prompt", "x", "--out", out, "--weights", folder, "--runtime", runtime, *flags
    )
    assert not out.exists()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BudcError)]
    (name,) = [kind.__name__ for kind in kinds if kind.exit_code == code]
    return name


@pytest.fixture(params=["reader", "diffusers", "onnxruntime", "verify", "run diffusers", "run onnxruntime"])
def judge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Judge:
    """Each of those that look at an artifact and at a model folder."""
    kind: str = request.param
    if "diffusers" in kind:
        pipe = request.getfixturevalue("pipe")
        from budc.runtimes.diffusers.apply import apply
    elif "onnxruntime" in kind:
        pytest.importorskip("onnxruntime")
        from budc.runtimes.onnxruntime.pipeline import load

    def judge(path: Path, trust: Path, folder: Path, unsigned: bool = False) -> str:
        monkeypatch.setenv("BUDC_TRUST", str(trust))
        options: dict[str, Any] = {"trust": Trust.load(trust), "allow_unsigned": unsigned}
        if kind == "reader":
            return by_reader(path, folder, options)
        if kind == "diffusers":
            return refusal(lambda: apply(pipe, path, weights_dir=folder, **options))
        if kind == "onnxruntime":
            return refusal(lambda: load(path, folder, **options))
        return (
            by_verify(path, folder) if kind == "verify" else by_run(kind.split()[1], path, folder, unsigned)
        )

    return judge


# Artifacts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "case"), ARTIFACTS.items(), ids=list(ARTIFACTS))
def test_artifact(corpus: Path, judge: Judge, name: str, case: dict[str, Any]) -> None:
    trust = corpus / "trust" / f"{case['trust']}.toml"
    path = corpus / "artifacts" / f"{name}.budc.json"
    # The folder is none: who looks at it before the artifact is believed reports that instead.
    assert judge(path, trust, corpus / "nowhere", case["unsigned"]) == case["error"]


@pytest.mark.parametrize(("name", "case"), ARTIFACTS.items(), ids=list(ARTIFACTS))
def test_artifact_in_budc_inspect(corpus: Path, name: str, case: dict[str, Any]) -> None:
    """What is malformed is not shown; what is merely not to be believed is, and is said to be."""
    path = corpus / "artifacts" / f"{name}.budc.json"
    code, out = command("inspect", path, "--json")
    kind = getattr(errors, case["error"])
    if name == "evaluation-signed-by-publisher":
        # Shown as what it is.
        assert (code, json.loads(out)["document"]["policyName"]) == (0, "attacked")
        return
    if issubclass(kind, (ArtifactError, UnsafeWeights, WrongPayloadType)):
        assert (code, json.loads(out)["error"]) == (kind.exit_code, case["error"])
        return
    assert (code, json.loads(out)["verified"]) == (0, False)
    assert "not verified here" in command("inspect", path)[1]


# Evaluations ----------------------------------------------------------------------------------------------


def beside(folder: Path, corpus: Path, data: bytes) -> Path:
    """Return a copy of the valid artifact with an evaluation beside it."""
    path = folder / "valid.budc.json"
    path.write_bytes((corpus / "valid.budc.json").read_bytes())
    (folder / "valid.evaluation.json").write_bytes(data)
    return path


def test_what_the_attacks_on_evaluations_start_from_is_believed(corpus: Path, tmp_path: Path) -> None:
    path = beside(tmp_path, corpus, signed(evaluation()))
    trust = Trust.load(corpus / "trust" / "evaluator.toml")
    assert open_artifact(path, trust).verified_by == trust.keys
    assert refusal(lambda: open_artifact(path, trust.requiring("psnr>=32"))) == "NotEvaluated"


@pytest.mark.parametrize(("name", "case"), EVALUATIONS.items(), ids=list(EVALUATIONS))
def test_evaluation(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, case: dict[str, Any]
) -> None:
    """It is named with its error, never believed, and does not meet what is required; without the rule it harms nobody."""
    data = (corpus / "evaluations" / f"{name}.evaluation.json").read_bytes()
    path, trust_file = beside(tmp_path, corpus, data), corpus / "trust" / f"{case['trust']}.toml"
    trust = Trust.load(trust_file)
    policy = open_artifact(path, replace(trust, required=()))
    evaluated = [data, policy.policy_id, policy.document, trust]
    assert refusal(lambda: open_evaluation(*evaluated)) == case["error"]
    assert refusal(lambda: open_artifact(path, trust)) == "NotEvaluated"
    monkeypatch.setenv("BUDC_TRUST", str(trust_file))
    code, out = command("verify", path)
    assert (code, "valid.evaluation.json is not believed: " in out) == (43, True)
    assert all(char.isprintable() or char == "\n" for char in out)
    lenient = tmp_path / "lenient.toml"
    lenient.write_text(trust_file.read_text().replace("require-evaluation", "# require-evaluation"))
    code, out = command("verify", path, "--trust", lenient, "--json")
    (record,) = json.loads(out)["evaluations"]
    assert (code, record["believed"], record["error"]) == (0, False, case["error"])


@pytest.mark.parametrize(("name", "case"), EVALUATIONS.items(), ids=list(EVALUATIONS))
def test_evaluation_in_budc_inspect(corpus: Path, name: str, case: dict[str, Any]) -> None:
    """What is malformed is not shown; what is merely not to be believed is, and is said to be."""
    code, out = command("inspect", corpus / "evaluations" / f"{name}.evaluation.json", "--json")
    record, kind = json.loads(out), getattr(errors, case["error"])
    if name == "a-policy":
        assert record["policyId"]
    elif name == "as-a-policy" or issubclass(kind, (ArtifactError, WrongPayloadType)):
        assert code != 0
    else:
        assert (code, record["verified"]) == (0, False)


@pytest.mark.parametrize(("name", "case"), EVALUATIONS.items(), ids=list(EVALUATIONS))
def test_evaluation_in_budc_report(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, case: dict[str, Any]
) -> None:
    """The page is refused, or says that nobody vouches for it, or leaves out what is not of the policy."""
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    data = (corpus / "evaluations" / f"{name}.evaluation.json").read_bytes()
    path, out = beside(tmp_path, corpus, data), tmp_path / "report.html"
    lenient = tmp_path / "lenient.toml"
    text = (corpus / "trust" / f"{case['trust']}.toml").read_text()
    lenient.write_text(text.replace("require-evaluation", "# require-evaluation"))
    monkeypatch.setenv("BUDC_TRUST", str(lenient))
    code, _ = command("report", path.parent, "--out", out)
    kind = getattr(errors, case["error"])
    if code == 0:
        page = out.read_text(encoding="utf-8")
        assert "prompts; signed by" not in page
        assert ("Not verified: valid.evaluation.json (" in page) == (kind is not NotEvaluated)
    else:
        assert code == kind.exit_code
    assert issubclass(kind, (Unsigned, UntrustedKey, NotEvaluated)) or code != 0


# Trust files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "case"), TRUST_FILES.items(), ids=list(TRUST_FILES))
def test_trust_file(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, case: dict[str, Any]
) -> None:
    """Refused when it is read, by the commands that use it, and when it would be rewritten: then it stays as it is."""
    path = tmp_path / "trust.toml"
    data = (corpus / "trust-files" / f"{name}.toml").read_bytes()
    path.write_bytes(data)
    assert refusal(lambda: Trust.load(path)) == case["error"]
    monkeypatch.setenv("BUDC_TRUST", str(path))
    kind = getattr(errors, case["error"])
    assert command("verify", corpus / "valid.budc.json")[0] == kind.exit_code
    if b"keys" in data and name != "no-keys":
        assert command("trust", "deny", "sha256:" + "0" * 64)[0] == kind.exit_code
        assert path.read_bytes() == data


# Models and weights ---------------------------------------------------------------------------------------


def model_folder(corpus: Path, name: str) -> Path:
    folder = corpus / "models" / name
    return folder / "snapshots" / "rev" if (folder / "snapshots").is_dir() else folder


def bound_policy(forge: ModuleType, path: Path, model: dict[str, bytes]) -> Path:
    """Write a policy for a known profile, bound to these files as a model and, with a manifest, as an export."""
    files = {name: hashlib.sha256(data).hexdigest() for name, data in model.items()}
    export = files | {MANIFEST: hashlib.sha256(b"{}").hexdigest()}
    variants = [{"name": "original", "files": files}, {"name": "onnx-float32", "files": export}]
    bound = {"profile": "wan2.1-nano", "variants": variants}
    path.write_bytes(forge.policy(forge.changed("model", to=lambda old: old | bound)))
    return path


def whole(folder: Path) -> None:
    """Make a folder look like one of diffusers and like an export."""
    for name in ("model_index.json", MANIFEST):
        (folder / name).write_text("{}")


@pytest.fixture(scope="module")
def exports(forge: ModuleType, script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus, in which every model claims to be an ONNX export as well, and a policy for both."""
    corpus = tmp_path_factory.mktemp("exports")
    script.make(corpus)
    bound_policy(forge, corpus / "bound.budc.json", forge.MODEL)
    for name in ("good", *MODELS):
        whole(model_folder(corpus, name))
    return corpus


@pytest.mark.parametrize(("name", "case"), MODELS.items(), ids=list(MODELS))
def test_model(exports: Path, judge: Judge, name: str, case: dict[str, Any]) -> None:
    trust = exports / "trust" / "default.toml"
    assert judge(exports / "bound.budc.json", trust, model_folder(exports, name)) == case["error"]


@pytest.mark.parametrize(("name", "case"), WEIGHTS.items(), ids=list(WEIGHTS))
def test_weights(corpus: Path, name: str, case: dict[str, Any]) -> None:
    assert refusal(lambda: tensor_root([corpus / "weights" / f"{name}.safetensors"])) == case["error"]


@pytest.mark.parametrize(("name", "case"), WEIGHTS.items(), ids=list(WEIGHTS))
def test_weights_that_a_policy_is_bound_to(
    corpus: Path, forge: ModuleType, judge: Judge, tmp_path: Path, name: str, case: dict[str, Any]
) -> None:
    model = forge.MODEL | {forge.SHARD: (corpus / "weights" / f"{name}.safetensors").read_bytes()}
    folder = tmp_path / "model"
    for relative, content in model.items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        (folder / relative).write_bytes(content)
    whole(folder)
    path = bound_policy(forge, folder / "bound.budc.json", model)
    assert judge(path, corpus / "trust" / "default.toml", folder) == case["error"]


def test_the_good_model_gets_past_these_checks(
    exports: Path, pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from budc.runtimes.admission.settings import SettingsCheck
    from budc.runtimes.diffusers.weights import verify_model

    path, trust, folder = (
        exports / "bound.budc.json",
        exports / "trust" / "default.toml",
        exports / "models/good",
    )
    monkeypatch.setenv("BUDC_TRUST", str(trust))
    document = open_artifact(path, Trust.load(trust)).document
    for weights_dir in (folder, None):
        verify_model(
            pipe.transformer, document.model.denoisers[0], document, SettingsCheck(), weights_dir=weights_dir
        )
    code, out = command("verify", path, "--weights", folder, "--json")
    assert (code, json.loads(out)["variant"]) == (0, "original")
    pytest.importorskip("onnxruntime")
    from budc.runtimes.onnxruntime.pipeline import load

    # Its files are those that the policy lists; the manifest is none.
    with pytest.raises(UnsafeWeights, match=MANIFEST):
        load(path, folder, trust=Trust.load(trust))
