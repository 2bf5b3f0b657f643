import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import budc
from budc.runtimes.admission import settings
from budc.runtimes.admission import trust as admission
from budc.schema import artifact, errors, trust

GUIDE = Path(__file__).parents[2] / "docs" / "api.md"


def test_names_lead_home():
    assert budc.open_artifact is artifact.open_artifact
    assert budc.Trust is trust.Trust
    assert budc.BudcError is errors.BudcError
    assert budc.UncalibratedWarning is settings.UncalibratedWarning
    assert budc.UnsignedWarning is admission.UnsignedWarning
    assert budc.__version__ == version("budc")


def test_the_diffusers_runtime():
    pytest.importorskip("torch")
    from budc.runtimes.diffusers import applied, apply, pipeline

    assert budc.apply is apply.apply
    assert budc.applied is apply.applied
    assert budc.AppliedPolicy is applied.AppliedPolicy
    assert budc.load_pipeline is pipeline.load_pipeline


def test_the_onnx_runtime():
    pytest.importorskip("onnxruntime")
    from budc.runtimes.onnxruntime.pipeline import load

    assert budc.load_onnx is load


def test_without_torch_the_warnings_are_there_and_the_rest_names_the_extra():
    code = """
import sys
sys.modules["torch"] = sys.modules["diffusers"] = None
import budc
print(budc.UncalibratedWarning.__name__, budc.UnsignedWarning.__name__)
for use in (lambda: budc.AppliedPolicy, lambda: budc.apply, lambda: budc.load_pipeline("wan2.1-nano")):
    try:
        use()
    except budc.BudcError as error:
        print(type(error).__name__, "budc[torch]" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["UncalibratedWarning UnsignedWarning", *["MissingExtra True"] * 3]


def test_the_guide_describes_every_name():
    guide = GUIDE.read_text(encoding="utf-8")
    assert [name for name in budc.__all__ if f"`budc.{name}" not in guide] == []


def test_all_names_exist_and_others_do_not():
    assert set(budc.__all__) <= set(dir(budc))
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        _ = budc.nope
