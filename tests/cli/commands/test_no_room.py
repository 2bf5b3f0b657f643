"""Folders that are read-only, and disks that are full, for every command that writes: nothing is lost, and it says so."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from budc.schema.artifact import seal
from budc.schema.digests import file_digests

# A limit on the size of files is met by the same calls as the end of a disk, with another number for the error.
BUDC = """
import resource, sys
if (limit := int(sys.argv.pop(1))):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from budc.cli import main
sys.exit(main())
"""


@pytest.fixture
def here(tmp_path, model_folder, make_document, signer, key_pair):
    """A folder of its own in which the command works, beside what it reads: a policy for `model`, a key."""
    binding = make_document().model
    files = file_digests(model_folder, [str(p.relative_to(model_folder)) for p in model_folder.rglob("*.*")])
    variant = msgspec.structs.replace(binding.variants[0], files=dict(sorted(files.items())))
    document = make_document(model=msgspec.structs.replace(binding, variants=[variant]))
    (tmp_path / "p.budc.json").write_bytes(seal(document, signer))
    (tmp_path / "k.key").write_bytes(key_pair.private)
    (tmp_path / "k.pub").write_bytes(key_pair.public)
    (tmp_path / "prompts.txt").write_text("a red circle moves left\na blue cross rises\n")
    folder = tmp_path / "here"
    folder.mkdir()
    model_folder.rename(folder / "model")
    return folder


def call(folder: Path, arguments: list[object], limit: int = 0) -> subprocess.CompletedProcess[str]:
    """Run `budc` in `folder`, as somebody whom permissions bind: root without the capability to ignore them."""
    command = [sys.executable, "-c", BUDC, limit, *arguments]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set=-dac_override", *command]
    environment = os.environ | {"BUDC_TRUST": "trust.toml"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


LIGHT = {
    "keygen": "keygen --out release",
    "sign": "sign ../p.budc.json --key ../k.key --replace --out signed.budc.json",
    "attach": "attach ../p.budc.json model",
    "push": "push ../p.budc.json --base-model someone/model --out hub",
    "trust": "trust add ../k.pub --name release",
}
HEAVY = {
    "compile": "compile --model wan2.1-nano --budget 3 --steps 6 --weights WEIGHTS "
    "--calibration ../prompts.txt --search uniform --out p.budc.json",
    "transfer": "transfer ../p.budc.json --to wan2.1-nano --weights WEIGHTS --trust ../k.pub --allow-differences "
    "--out p.budc.json",
    "export": "export onnx --model wan2.1-nano --weights WEIGHTS --out onnx",
}


@pytest.fixture(params=[*LIGHT, *HEAVY])
def arguments(request):
    """A command that would write in the folder where it is called."""
    words = (LIGHT | HEAVY)[request.param].split()
    if "WEIGHTS" not in words:
        return words
    pytest.importorskip("torch")
    weights = request.getfixturevalue("wan_folder")
    return [weights if word == "WEIGHTS" else word for word in words]


def test_a_read_only_folder(here, arguments):
    before = contents(here)
    for folder in (here, here / "model"):
        folder.chmod(0o555)
    try:
        done = call(here, arguments)
    finally:
        for folder in (here, here / "model"):
            folder.chmod(0o755)
    assert done.returncode == 61, done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(here) == before


@pytest.mark.parametrize("name", LIGHT)
def test_a_full_disk_leaves_what_was_there(here, name):
    assert call(here, LIGHT[name].split()).returncode == 0
    before = contents(here)
    done = call(here, LIGHT[name].split(), limit=1)
    # What is attached already is not written again.
    assert done.returncode in ((0,) if name == "attach" else (61, 2)), done.stderr
    assert "Traceback" not in done.stderr
    assert contents(here) == before


@pytest.mark.parametrize("name", LIGHT)
def test_a_full_disk_leaves_nothing_where_nothing_was(here, name):
    before = contents(here)
    done = call(here, LIGHT[name].split(), limit=1)
    assert done.returncode == 61, done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    left = {path: data for path, data in contents(here).items() if data}
    assert left == {path: data for path, data in before.items() if data}
