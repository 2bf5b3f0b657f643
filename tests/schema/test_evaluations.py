"""Evaluations beside an artifact: names, and the policies that are refused without one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from budc.schema.artifact import Artifact, open_artifact, read, seal, verify
from budc.schema.attestation import seal_evaluation
from budc.schema.errors import NotEvaluated, UsageError
from budc.schema.evaluation import plain_file
from budc.schema.evaluations import MOST, copies, evaluation_path, find_evaluations
from budc.schema.policy import PolicyDocument
from budc.schema.signers import Signer
from budc.schema.trust import Trust

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def both(trust: Trust) -> Trust:
    """Trust in one key, in both roles."""
    return replace(trust, evaluators=trust.keys)


@pytest.fixture
def artifact(make_document: Make, signer: Signer, tmp_path: Path) -> Artifact:
    path = tmp_path / "nano.budc.json"
    path.write_bytes(seal(make_document(), signer))
    return replace(read(path), path=path)


@pytest.fixture
def beside(artifact: Artifact, make_evaluation: Make, signer: Signer) -> Callable[..., Path]:
    """Write a signed evaluation beside the artifact."""

    def write(
        name: str = "nano.evaluation.json", policy: PolicyDocument = artifact.document, **given: Any
    ) -> Path:
        assert artifact.path is not None
        path = artifact.path.with_name(name)
        path.write_bytes(seal_evaluation(make_evaluation(policy, **given), signer))
        return path

    return write


def found(artifact: Artifact, trust: Trust) -> dict[str, bool]:
    assert artifact.path is not None
    items = find_evaluations(artifact.path, artifact.policy_id, artifact.document, trust)
    return {item.path.name: item.evaluation is not None for item in items}


def test_several_may_lie_beside_an_artifact(
    artifact: Artifact, beside: Any, both: Trust, make_document: Make, make_evaluation: Make
) -> None:
    beside()
    beside("nano.lab.evaluation.json")
    beside("nanometer.evaluation.json")
    beside("nano.old.evaluation.json", make_document(revision=2))
    folder = beside("nano.broken.evaluation.json").parent
    (folder / "nano.broken.evaluation.json").write_bytes(b"{")
    (folder / "nano.plain.evaluation.json").write_bytes(plain_file(make_evaluation(artifact.document)))
    (folder / "nano.folder.evaluation.json").mkdir()
    assert found(artifact, both) == {
        "nano.evaluation.json": True,
        "nano.lab.evaluation.json": True,
        "nano.old.evaluation.json": False,
        "nano.broken.evaluation.json": False,
        "nano.plain.evaluation.json": False,
        "nano.folder.evaluation.json": False,
    }


def test_a_folder_full_of_them_takes_bounded_time(artifact: Artifact, beside: Any, both: Trust) -> None:
    data = beside().read_bytes()
    for index in range(MOST):
        beside().with_name(f"nano.{index}.evaluation.json").write_bytes(data)
    names = found(artifact, both)
    assert sum(names.values()) == MOST
    assert len(names) == MOST + 1


def test_no_file_of_another_evaluator_is_replaced(
    artifact: Artifact, beside: Any, trust: Trust, make_evaluation: Make
) -> None:
    (key,) = trust.keys
    path = artifact.path
    assert path is not None
    plain = path.with_name("nano.evaluation.json")
    assert evaluation_path(path, key) == plain
    beside()
    assert evaluation_path(path, key) == plain
    plain.write_bytes(plain_file(make_evaluation(artifact.document)))
    own = path.with_name(f"nano.{key.fingerprint[7:15]}.evaluation.json")
    assert evaluation_path(path, key) == own
    own.touch()
    plain.unlink()
    assert evaluation_path(path, key) == own


def test_a_policy_without_the_evaluation_that_is_required_is_refused_wherever_it_is_opened(
    artifact: Artifact, beside: Any, both: Trust
) -> None:
    path = artifact.path
    assert path is not None
    requiring = both.requiring("psnr>=30,n>=4")
    doors: list[Callable[[Trust], object]] = [
        lambda trust: open_artifact(path, trust),
        lambda trust: open_artifact(path.read_bytes(), trust, path=path),
        lambda trust: verify(artifact, trust),
    ]
    for door in doors:
        door(both)
        with pytest.raises(NotEvaluated, match="There is none beside it"):
            door(requiring)
    beside()
    for door in doors:
        door(requiring)
        with pytest.raises(
            NotEvaluated, match=r"nano\.evaluation\.json: PSNR is 31, and PSNR >= 35 is required"
        ):
            door(both.requiring("psnr>=35"))
    for call in (
        lambda: open_artifact(path.read_bytes(), requiring),
        lambda: verify(read(path.read_bytes()), requiring),
    ):
        with pytest.raises(NotEvaluated, match="no file beside which it could lie"):
            call()


def test_one_evaluation_must_meet_all_bounds(artifact: Artifact, beside: Any, both: Trust) -> None:
    assert artifact.path is not None
    beside(psnrs=[40.0])
    beside("nano.many.evaluation.json", psnrs=[20.0] * 8)
    with pytest.raises(NotEvaluated) as refused:
        open_artifact(artifact.path, both.requiring("psnr>=30,n>=8"))
    assert "nano.evaluation.json: n is 1" in str(refused.value)
    assert "nano.many.evaluation.json: PSNR is 20" in str(refused.value)
    beside("nano.best.evaluation.json", psnrs=[40.0] * 8)
    open_artifact(artifact.path, both.requiring("psnr>=30").requiring("n>=8"))


def test_a_requirement_that_nobody_can_meet_is_a_usage_error(trust: Trust) -> None:
    with pytest.raises(UsageError, match="no key is trusted as an evaluator's"):
        trust.requiring("psnr>=30")


def test_evaluations_of_the_policy_come_along(
    artifact: Artifact, beside: Any, make_document: Make, tmp_path: Path
) -> None:
    beside()
    beside("nano.lab.evaluation.json")
    beside("nano.old.evaluation.json", make_document(revision=2))
    assert artifact.path is not None
    names = copies(artifact.path, artifact.policy_id, tmp_path / "elsewhere" / "other.budc.json")
    assert [path.name for path in names] == ["other.evaluation.json", "other.lab.evaluation.json"]
