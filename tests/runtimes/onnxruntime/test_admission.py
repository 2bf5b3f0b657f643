"""What the ONNX pipeline opens and what it refuses: signatures, files, denoisers, arguments of `load`."""

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from onnx_pipelines import PROMPTS, opened  # noqa: E402

from budc.runtimes.onnxruntime.pipeline import (  # noqa: E402
    UncalibratedWarning,
    UnsignedWarning,
    load,
)
from budc.runtimes.testing import GOLDEN  # noqa: E402
from budc.schema.artifact import read, seal  # noqa: E402
from budc.schema.errors import (  # noqa: E402
    UnsafeWeights,
    Unsigned,
    UnsupportedModel,
    UntrustedKey,
    UsageError,
    WeightsMismatch,
    WeightsMissing,
)
from budc.schema.policy import Expert, PolicyDocument  # noqa: E402


@pytest.mark.parametrize("name", ["text_encoder", "compute", "vae_decoder"])
def test_a_graph_that_changes_between_load_and_first_use_is_refused(
    document: PolicyDocument, exported: Path, tmp_path: Path, name: str
) -> None:
    """Graphs are opened when they are first needed, which may be long after the folder was verified."""
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    pipe = opened(document, folder)
    path = folder / pipe.manifest.graphs[name].file  # type: ignore[index]
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(WeightsMismatch, match=r"has changed since the export was verified"):
        pipe.generate(PROMPTS[0])
    path.write_bytes(content)
    pipe.generate(PROMPTS[0])
    path.unlink()
    pipe.generate(PROMPTS[0])


def test_signed_artifacts(document: PolicyDocument, exported: Path, signer: Any, trust: Any) -> None:
    artifact = read(seal(document, signer))
    generation = load(artifact, exported, trust=trust).generate(PROMPTS[0])
    assert generation.frames.shape == (5, 64, 64, 3)
    assert 0 <= generation.frames.min() < generation.frames.max() <= 1
    assert generation.latents.shape == (1, 16, 2, 8, 8)
    assert generation.seconds > 0
    with pytest.raises(UntrustedKey):
        load(artifact, exported)


def test_unsigned_documents_run_with_a_warning_or_not_at_all(
    document: PolicyDocument, exported: Path
) -> None:
    with pytest.raises(Unsigned):
        load(document, exported)
    with pytest.warns(UnsignedWarning, match="nobody vouches"):
        load(document, exported, allow_unsigned=True)


def test_an_export_that_the_policy_does_not_list(unbound: PolicyDocument, exported: Path) -> None:
    with pytest.raises(WeightsMismatch, match="lists no ONNX export") as refusal:
        opened(unbound, exported)
    assert "budc bind" in refusal.value.remedy
    with pytest.warns(UncalibratedWarning, match="weights: "):
        pipe = opened(unbound, exported, allow_uncalibrated=True)
    assert pipe.uncalibrated[0].startswith("weights: ")


@pytest.mark.parametrize(
    "name",
    ["transformer/compute.onnx", "vae_decoder/model.onnx.data", "tokenizer/tokenizer.json", "budc-onnx.json"],
)
def test_every_file_is_verified(document: PolicyDocument, exported: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(WeightsMismatch, match=name):
        opened(document, folder)
    # An uncalibrated run may use other weights, but only files that match the manifest.
    with pytest.raises((WeightsMismatch, UnsafeWeights), match=name):
        opened(document, folder, allow_uncalibrated=True)


def test_missing_folders_and_files(document: PolicyDocument, exported: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing):
        opened(document, tmp_path / "none")
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    (folder / "transformer" / "weights.onnx.data").unlink()
    with pytest.raises(WeightsMissing, match=r"transformer/weights\.onnx\.data"):
        opened(document, folder)


def test_another_denoiser(document: PolicyDocument, exported: Path) -> None:
    denoiser = msgspec.structs.replace(document.model.denoisers[0], class_name="FluxTransformer2DModel")
    model = msgspec.structs.replace(document.model, denoisers=[denoiser])
    with pytest.raises(
        UnsupportedModel, match="FluxTransformer2DModel, the export has transformer WanTransformer3DModel"
    ):
        opened(msgspec.structs.replace(document, model=model), exported)


def test_several_denoisers(document: PolicyDocument, exported: Path) -> None:
    (first,) = document.model.denoisers
    second = msgspec.structs.replace(first, name="transformer_2")
    model = msgspec.structs.replace(document.model, denoisers=[first, second])
    document = GOLDEN["plain reuse"].document(document)
    expert = Expert(denoiser="transformer_2", first_step=3, guidance=3.0)
    sampler = msgspec.structs.replace(document.sampler, experts=[expert])
    message = "for transformer WanTransformer3DModel, transformer_2 WanTransformer3DModel, the export has transformer Wan"
    with pytest.raises(UnsupportedModel, match=message):
        opened(msgspec.structs.replace(document, model=model, sampler=sampler), exported)


def test_load_names_a_wrong_folder_or_provider(document: PolicyDocument, exported: Path) -> None:
    for folder in (None, b"folder", ""):
        with pytest.raises(UsageError, match=r"folder: .* is no path"):
            opened(document, folder)  # type: ignore[arg-type]
    with pytest.raises(WeightsMissing):
        opened(document, Path(__file__))
    for provider in (None, ["cpu"], "gpu"):
        with (
            pytest.warns(UnsignedWarning),
            pytest.raises(UsageError, match=r"provider: .* is not one of cpu, cuda"),
        ):
            load(document, exported, allow_unsigned=True, provider=provider)  # type: ignore[arg-type]
