"""Every attack of the corpus gets the error that it is listed with, from the reader and from the runtime."""

import json
import types
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from budc.schema.artifact import open_artifact
from budc.schema.digests import find_variant, tensor_root
from budc.schema.errors import BudcError
from budc.schema.trust import Trust

HERE = Path(__file__).parent
EXPECTED: dict[str, dict[str, dict[str, Any]]] = json.loads((HERE / "expected.json").read_text("utf-8"))
ARTIFACTS, WEIGHTS, MODELS = EXPECTED["artifacts"], EXPECTED["weights"], EXPECTED["models"]


def refusal(call: Any) -> BudcError:
    with pytest.raises(BudcError) as caught:
        call()
    message = str(caught.value)
    assert message
    assert message.isprintable()
    assert caught.value.remedy
    return caught.value


def test_the_corpus_is_what_the_script_makes(corpus: Path) -> None:
    assert (corpus / "expected.json").read_text() == (HERE / "expected.json").read_text()
    names = {path.name for path in (HERE / "artifacts").iterdir()}
    assert names == {path.name for path in (corpus / "artifacts").iterdir()}
    for name in names:
        assert (HERE / "artifacts" / name).read_bytes() == (corpus / "artifacts" / name).read_bytes(), name
    assert len(ARTIFACTS) + len(WEIGHTS) + len(MODELS) >= 60


def test_what_the_attacks_start_from_is_believed(corpus: Path) -> None:
    artifact = open_artifact(corpus / "valid.budc.json", Trust.load(corpus / "trust" / "default.toml"))
    variants = artifact.document.model.variants
    assert find_variant(corpus / "models" / "good", variants).name == "original"
    weights = corpus / "models" / "good" / "transformer" / "diffusion_pytorch_model.safetensors"
    assert tensor_root([weights]) == artifact.document.model.denoisers[0].tensor_root


@pytest.mark.parametrize(("name", "case"), ARTIFACTS.items(), ids=list(ARTIFACTS))
def test_artifact(corpus: Path, name: str, case: dict[str, Any]) -> None:
    trust = Trust.load(corpus / "trust" / f"{case['trust']}.toml")
    path = corpus / "artifacts" / f"{name}.budc.json"
    error = refusal(lambda: open_artifact(path, trust, allow_unsigned=case["unsigned"]))
    assert type(error).__name__ == case["error"], error


@pytest.mark.parametrize(("name", "case"), WEIGHTS.items(), ids=list(WEIGHTS))
def test_weights(corpus: Path, name: str, case: dict[str, Any]) -> None:
    error = refusal(lambda: tensor_root([corpus / "weights" / f"{name}.safetensors"]))
    assert type(error).__name__ == case["error"], error


def model_folder(corpus: Path, name: str) -> Path:
    folder = corpus / "models" / name
    return folder / "snapshots" / "rev" if (folder / "snapshots").is_dir() else folder


@pytest.mark.parametrize(("name", "case"), MODELS.items(), ids=list(MODELS))
def test_model(corpus: Path, name: str, case: dict[str, Any]) -> None:
    artifact = open_artifact(corpus / "valid.budc.json", Trust.load(corpus / "trust" / "default.toml"))
    variants = artifact.document.model.variants
    error = refusal(lambda: find_variant(model_folder(corpus, name), variants))
    assert type(error).__name__ == case["error"], error


class WanPipeline:
    """As much of a pipeline as the checks before a run look at."""

    def __init__(self, maker: ModuleType) -> None:
        torch = pytest.importorskip("torch")

        class WanTransformer3DModel(torch.nn.Module):  # type: ignore[misc]
            config = types.MappingProxyType({})

            def __init__(self) -> None:
                super().__init__()
                self.proj = torch.nn.Module()
                for name, data in maker.WEIGHTS.items():
                    values = torch.frombuffer(bytearray(data), dtype=torch.float32)
                    setattr(self.proj, name.split(".")[1], torch.nn.Parameter(values))

        self.transformer = WanTransformer3DModel()
        self.scheduler = SimpleNamespace()


@pytest.fixture(scope="module")
def pipe(maker: ModuleType) -> Any:
    pytest.importorskip("diffusers")
    return WanPipeline(maker)


@pytest.mark.parametrize(("name", "case"), ARTIFACTS.items(), ids=list(ARTIFACTS))
def test_artifact_in_the_diffusers_runtime(corpus: Path, pipe: Any, name: str, case: dict[str, Any]) -> None:
    from budc.runtimes.diffusers import apply

    trust = Trust.load(corpus / "trust" / f"{case['trust']}.toml")
    path = corpus / "artifacts" / f"{name}.budc.json"
    error = refusal(lambda: apply(pipe, path, trust=trust, allow_unsigned=case["unsigned"]))
    assert type(error).__name__ == case["error"], error


@pytest.mark.parametrize(("name", "case"), MODELS.items(), ids=list(MODELS))
def test_model_in_the_diffusers_runtime(corpus: Path, pipe: Any, name: str, case: dict[str, Any]) -> None:
    from budc.runtimes.diffusers import apply

    trust = Trust.load(corpus / "trust" / "default.toml")
    folder = model_folder(corpus, name)
    error = refusal(lambda: apply(pipe, corpus / "valid.budc.json", trust=trust, weights_dir=folder))
    assert type(error).__name__ == case["error"], error


def test_the_runtime_gets_past_identity_with_the_good_model(corpus: Path, pipe: Any) -> None:
    from budc.runtimes.calibration import Calibration
    from budc.runtimes.identity import verify_model

    document = open_artifact(
        corpus / "valid.budc.json", Trust.load(corpus / "trust" / "default.toml")
    ).document
    for folder in (corpus / "models" / "good", None):
        verify_model(pipe.transformer, document, Calibration(), weights_dir=folder)
