"""Every example in the README and the guides runs: a document's `sh` and `python` blocks, in order, in one folder.

A block with a file's name is written there, for the others to use. Blocks marked `console` or `text` show what
is typed or printed elsewhere and are not run.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from budc.schema.artifact import read, seal

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(sh|python|toml|csv|jsonl)(?: (?P<name>\S+))?\n(?P<body>.*?)^```$", re.M | re.S)
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if any(match[1] in ("sh", "python") for match in BLOCK.finditer(path.read_text(encoding="utf-8")))
]

FEW_PROMPTS = ROOT / "tests" / "support" / "few_prompts"
LONG = {
    "README.md",
    "compile.md",
    "evaluate.md",
    "fine-tune.md",
    "flux.md",
    "network.md",
    "onnx.md",
    "models.md",
    "release.md",
    "report.md",
    "run.md",
    "runtime-guide.md",
    "scaling.md",
    "service.md",
    "start.md",
    "trust.md",
    "targets.md",
    "without-torch.md",
}
"""Documents with many examples, with the export of a whole model, or with rivals that are fitted: no number of prompts
makes them short. The slow tests run them as they are written."""

COMPILED = ROOT / "tests" / "golden" / "v1.0" / "compiled.budc.json"
SERVICE = ROOT / "examples" / "service"
GIVEN = {
    "trust.md": {"policy.budc.json": seal(read(COMPILED).document, None)},
    "service.md": {f"examples/service/{path.name}": path.read_bytes() for path in SERVICE.glob("*.py")},
}
"""Files that must be there before a document's first example."""


def run(kind, body, folder, few_prompts):
    path = [*[str(FEW_PROMPTS)] * few_prompts, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(path),
    }
    command = (
        ["bash", "-euo", "pipefail", "-c", body]
        if kind == "sh"
        else [sys.executable, "-W", "error", "-c", body]
    )
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_there_are_examples():
    assert ROOT / "README.md" in DOCUMENTS


def check_examples(path, tmp_path, few_prompts):
    for name, content in GIVEN.get(path.name, {}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
        kind, name, body = match[1], match["name"], match["body"]
        if name:
            (tmp_path / name).write_text(body, encoding="utf-8")
        if name or kind not in ("sh", "python"):
            continue
        done = run(kind, body, tmp_path, few_prompts)
        assert done.returncode == 0, f"{path.name}:\n{body}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize(
    "path", [path for path in DOCUMENTS if path.name not in LONG], ids=lambda path: path.name
)
def test_examples_run_on_a_few_prompts(path, tmp_path):
    check_examples(path, tmp_path, few_prompts=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_examples_run_as_written(path, tmp_path):
    check_examples(path, tmp_path, few_prompts=False)
