"""Kept frames: the rules of an evaluation that has some, and files that are read only if they are what it says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kept_frames import keep

from budc.schema.errors import ArtifactError, OutputError, SemanticsViolation
from budc.schema.evaluation import EvaluationDocument
from budc.schema.evaluation_rules import check
from budc.schema.frame_files import read_frames, remove_former_frames, write_frames
from budc.schema.kept_frames import KeptFrames, frames_folder

Make = Callable[..., Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "nano.lab.evaluation.json"


@pytest.fixture
def evaluation(make_document: Make, make_evaluation: Make, path: Path) -> EvaluationDocument:
    return keep(make_evaluation(make_document()), path)


@pytest.fixture
def kept(evaluation: EvaluationDocument) -> KeptFrames:
    frames = evaluation.settings[0].frames
    assert frames is not None
    return frames


def test_files_are_read_as_they_were_written(path: Path, kept: KeptFrames) -> None:
    assert frames_folder(path).name == "nano.lab.frames"
    found = read_frames(path, kept)
    assert found is not None
    assert found.keys() == {digest for prompt in kept.prompts for digest in (prompt.full, prompt.policy)}
    assert sorted(kept.files) == sorted(file.name for file in frames_folder(path).iterdir())


def test_without_their_folder_there_are_none(path: Path, kept: KeptFrames, tmp_path: Path) -> None:
    assert read_frames(tmp_path / "elsewhere.evaluation.json", kept) is None


def test_a_changed_or_missing_file_is_refused(path: Path, kept: KeptFrames) -> None:
    file = frames_folder(path) / next(iter(kept.files))
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(ArtifactError, match=r"-[0-9a-f]{16}\.webp is not the picture that nano\.lab\."):
        read_frames(path, kept)
    file.unlink()
    with pytest.raises(ArtifactError, match="cannot read"):
        read_frames(path, kept)


def test_former_frames_are_removed_and_nothing_else(path: Path, kept: KeptFrames) -> None:
    folder = frames_folder(path)
    former = folder / f"worst-policy-{'0' * 16}.webp"
    for file in (former, folder / "notes.txt"):
        file.write_bytes(b"")
    remove_former_frames(path, kept.files)
    assert {file.name for file in folder.iterdir()} == {"notes.txt", *kept.files}


def test_a_folder_that_cannot_be_made_is_said(path: Path, tmp_path: Path) -> None:
    frames_folder(path).write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot make .*nano\.lab\.frames"):
        write_frames(path, {"a": b""})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": 4}, "the prompt 4, and there are 4"),
        ({"rank": "worst"}, "has worst twice"),
        ({"prompt": 1}, "has prompt 1 twice"),
        ({"height": 65}, "3 of 65 × 16"),
        ({"frames": 10}, "10 of 16 × 16"),
        ({"ranked_by": "flip"}, "ranked by flip"),
    ],
)
def test_rules(evaluation: EvaluationDocument, kept: KeptFrames, changes: Any, message: str) -> None:
    check(evaluation)
    if changes.keys() <= {"rank", "prompt"}:
        first, *others = kept.prompts
        changes = {"prompts": [msgspec.structs.replace(first, **changes), *others]}
    wrong = msgspec.structs.replace(evaluation.settings[0], frames=msgspec.structs.replace(kept, **changes))
    with pytest.raises(SemanticsViolation, match=message):
        check(msgspec.structs.replace(evaluation, settings=[wrong]))
