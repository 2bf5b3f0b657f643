"""What the command line needs before it loads torch stays light."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "diffusers", "transformers", "onnx", "onnxruntime", "safetensors")


@pytest.mark.parametrize(
    "module",
    [
        "budc.compiler.search",
        "budc.compiler.planning.devices",
        "budc.compiler.models.supported",
        "budc.policies.published_masks",
    ],
)
def test_importing_it_loads_no_numerical_library(module):
    code = f"import sys, {module}; print(*(name for name in {HEAVY!r} if name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
