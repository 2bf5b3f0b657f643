"""ComfyUI's engine itself: the tests of the folder `engine`, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_engine import engine_folder

HERE = Path(__file__).parent


@pytest.mark.slow
def test_the_engine_runs_policies_as_diffusers_does() -> None:
    if engine_folder() is None:
        pytest.skip("ComfyUI's engine is not here: python tests/support/comfyui_engine.py fetches it")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "-x"]
    # The engine's own packages change what other libraries find, so the process is not this one.
    done = subprocess.run(
        [*command, str(HERE / "engine")],
        env={**os.environ, "BUDC_COMFYUI_PROCESS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
