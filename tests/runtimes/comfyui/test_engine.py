"""ComfyUI's engine itself: the tests of the folder `engine`, in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from comfyui_engine import PACKAGES, SOURCE, engine_folder, packages_folder

HERE = Path(__file__).parent


@pytest.mark.slow
def test_the_engine_runs_policies_as_diffusers_does() -> None:
    folder = engine_folder()
    if folder is None:
        pytest.skip("ComfyUI's engine is not here: python tests/support/comfyui_engine.py fetches it")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "default", "-x"]
    # The engine's own packages change what other libraries find, so the process is not this one. It is told where they
    # are, as tests have a cache folder of their own.
    places = {SOURCE: str(folder), PACKAGES: str(packages_folder())}
    done = subprocess.run(
        [*command, str(HERE / "engine")],
        env={**os.environ, **places, "BUDC_COMFYUI_PROCESS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
