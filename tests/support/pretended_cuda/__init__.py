"""A pretended CUDA device: ONNX Runtime's own CUDA provider runs on stand-ins for the CUDA libraries.

The device's memory is the host's, kernels compute nothing, and everything that the provider asks the device for is
counted. This shows what the provider decides on the host: which nodes it takes, what it captures, what it copies and
when. It shows neither values that kernels compute nor times.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
CONVOLUTIONS = "libcudnn.so.9"
"""The provider opens it by name while it runs; the other libraries are in its dynamic section."""


class PretendedCuda:
    """Stand-ins for the CUDA libraries, built for the installed provider."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def watch(self, export: Path, policies: Sequence[Path]) -> list[dict[str, Any]]:
        """Run policies on an export in a process of its own; return what each asked the device for."""
        command = [sys.executable, str(HERE / "watched_run.py"), str(export), *map(str, policies)]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(self.folder)}
        process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr[-4000:]
        reports: list[dict[str, Any]] = json.loads(process.stdout)
        return reports


@pytest.fixture(scope="session")
def pretended_cuda(tmp_path_factory: pytest.TempPathFactory) -> PretendedCuda:
    """A machine with a CUDA device, as far as ONNX Runtime can tell."""
    onnxruntime = pytest.importorskip("onnxruntime")
    provider = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    missing = [tool for tool in ("gcc", "nm", "readelf") if shutil.which(tool) is None]
    if missing or not provider.exists():
        pytest.skip(f"there is no {', '.join(missing) or provider.name}")
    folder = tmp_path_factory.mktemp("cuda")
    build(provider, folder)
    return PretendedCuda(folder)


def build(provider: Path, folder: Path) -> None:
    """Compile the stand-ins into `folder`, under the names of the libraries that the provider opens."""
    sources = [HERE / "device.c", HERE / "convolutions.c"]
    implemented = set(re.findall(r"\b(\w+)\(", "".join(path.read_text() for path in sources)))
    symbols = _output("nm", "-D", "--undefined-only", str(provider))
    needed = set(re.findall(r" U ((?:cu|__cuda)\w+)", symbols))
    # Ends of longer names are among them, and harm nothing; asking what is before a name takes fifty times as long.
    strings = set(re.findall(rb"cudnn[A-Z]\w+(?=\0)", provider.read_bytes()))
    others = sorted((needed | {name.decode() for name in strings}) - implemented)
    rest = folder / "rest.c"
    rest.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in others))
    library = folder / "libpretended.so"
    _output("gcc", "-shared", "-fPIC", "-O1", "-w", "-o", str(library), *map(str, sources), str(rest))
    names = re.findall(r"\[(libcu\w+\.so\.\d+)\]", _output("readelf", "-d", str(provider)))
    for name in [*names, CONVOLUTIONS]:
        (folder / name).symlink_to(library)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
