"""Policies of format 1.1 on exports."""

from pathlib import Path

import pytest
from format_additions import ADDED, with_negative
from msgspec.structs import replace

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from onnx_pipelines import opened

from budc.runtimes.admission.additions import ONNX_RUNTIME, RUNS
from budc.schema.errors import CalibrationMismatch, UnsupportedModel, UnsupportedVersion
from budc.schema.policy import FurtherShape, NegativePrompt, PolicyDocument


@pytest.mark.parametrize("uncalibrated", [False, True])
@pytest.mark.parametrize(
    "name", [name for name, (_, added) in ADDED.items() if not set(added) <= RUNS[ONNX_RUNTIME]]
)
def test_what_cannot_be_run_is_refused_even_uncalibrated(
    untrained_export: PolicyDocument, exported: Path, name: str, uncalibrated: bool
) -> None:
    change, added = ADDED[name]
    document = change(untrained_export)
    if not document.model.variants:
        document = replace(document, model=replace(document.model, variants=untrained_export.model.variants))
    missing = next(item for item in added if item not in RUNS[ONNX_RUNTIME]).replace(".", r"\.")
    with pytest.raises((UnsupportedVersion, UnsupportedModel), match=missing):
        opened(document, exported, allow_uncalibrated=uncalibrated)


def test_an_export_of_any_listed_shape_runs(untrained_export: PolicyDocument, exported: Path) -> None:
    shape = untrained_export.shape
    assert shape is not None
    other = replace(untrained_export, shape=replace(shape, height=shape.height + 16))
    with pytest.raises(CalibrationMismatch, match="height: "):
        opened(other, exported)
    size = {"height": shape.height, "width": shape.width, "frames": shape.frames}
    listed = replace(other, further_shapes=[FurtherShape(**size, quality=other.quality)])
    assert opened(listed, exported).uncalibrated == ()


def test_the_negative_prompt_of_an_export_is_that_of_the_calibration(
    untrained_export: PolicyDocument, exported: Path
) -> None:
    text = opened(untrained_export, exported).manifest.negative_prompt
    assert opened(with_negative(untrained_export, text), exported).uncalibrated == ()
    varied = NegativePrompt(rule="varied")
    sampler = replace(untrained_export.sampler, negative_prompt=varied)
    assert opened(replace(untrained_export, sampler=sampler), exported).uncalibrated == ()
    with pytest.raises(CalibrationMismatch, match="negative prompt: the policy was calibrated for 'other'"):
        opened(with_negative(untrained_export, "other"), exported)
