"""Valid artifacts changed at the level of bytes, JSON and fields: refused with a BudcError, or the same in meaning."""

import contextlib
import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from attack_corpus.additions import VALID, newer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from budc.cli import main
from budc.schema.artifact import open_artifact, read
from budc.schema.digests import find_variant, tensor_root
from budc.schema.errors import BudcError
from budc.schema.published import check_schema
from budc.schema.statement import encode_statement
from budc.schema.trust import Trust

PROPERTY = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=40)
    | st.sampled_from(["0" * 64, "sha256:" + "0" * 64, "wan", "none", "float32", "1.0", "a\n", "\x1b[2J"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


NEWER = [newer(*edits) for edits in VALID.values()]


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place below a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*at, key)
        yield from places(item, (*at, key))


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    """Return a copy with `new` at a place; a list as `new` of one Ellipsis removes what is there."""
    value = copy.deepcopy(value)
    holder = value
    for key in at[:-1]:
        holder = holder[key]
    if new is ...:
        del holder[at[-1]]
    else:
        holder[at[-1]] = new
    return value


@pytest.fixture(scope="module")
def trust(corpus: Path) -> Trust:
    return Trust.load(corpus / "trust" / "default.toml")


@PROPERTY
@given(data=st.data())
def test_fields(forge: ModuleType, trust: Trust, data: st.DataObject) -> None:
    """A trusted key signs whatever it is given: what is accepted then is a policy that encodes to the same bytes."""
    statement = data.draw(st.sampled_from([forge.statement(), forge.shared(("transformer_2", 4, 3)), *NEWER]))
    at = data.draw(st.sampled_from(list(places(statement))))
    changed = put(statement, at, data.draw(VALUES | st.just(...)))
    try:
        payload = forge.payload_of(changed)
    except ValueError:
        return  # not JSON at all
    with contextlib.suppress(BudcError):
        artifact = open_artifact(forge.bundle(payload, forge.TRUSTED), trust)
        assert encode_statement(artifact.document) == payload == artifact.payload
        check_schema(payload)


@PROPERTY
@given(data=st.data())
def test_bundle_fields(forge: ModuleType, trust: Trust, data: st.DataObject) -> None:
    valid = json.loads(forge.policy(forge.statement()))
    at = data.draw(st.sampled_from(list(places(valid))))
    changed = json.dumps(put(valid, at, data.draw(VALUES | st.just(...))))
    with contextlib.suppress(BudcError):
        artifact = open_artifact(changed.encode(), trust)
        assert artifact.payload == forge.payload_of(forge.statement())


@PROPERTY
@given(
    edits=st.lists(
        st.tuples(st.integers(0, 1 << 13), st.integers(0, 3), st.binary(max_size=3)), min_size=1, max_size=3
    )
)
def test_bytes(forge: ModuleType, trust: Trust, edits: list[tuple[int, int, bytes]]) -> None:
    changed = forge.policy(forge.statement())
    for at, length, new in edits:
        start = at % (len(changed) + 1)
        changed = changed[:start] + new + changed[start + length :]
    with contextlib.suppress(BudcError):
        assert open_artifact(changed, trust).payload == forge.payload_of(forge.statement())


@PROPERTY
@given(at=st.integers(0, 1 << 10), length=st.integers(0, 3), new=st.binary(max_size=3))
def test_weights(forge: ModuleType, trust: Trust, tmp_path: Path, at: int, length: int, new: bytes) -> None:
    document = read(forge.policy(forge.statement())).document
    for name, content in forge.MODEL.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    good = forge.MODEL[forge.SHARD]
    start = at % (len(good) + 1)
    changed = good[:start] + new + good[start + length :]
    (tmp_path / forge.SHARD).write_bytes(changed)
    with contextlib.suppress(BudcError):
        find_variant(tmp_path, document.model.variants)
        assert changed == good
    with contextlib.suppress(BudcError):
        tensor_root([tmp_path / forge.SHARD])


def test_the_command_line_shows_nothing_that_acts_on_a_terminal(
    corpus: Path, forge: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUDC_TRUST", str(corpus / "trust" / "default.toml"))
    for path in sorted((corpus / "artifacts").iterdir()):
        for command in ("verify", "inspect"):
            code = main([command, str(path), "--json"])
            shown = capsys.readouterr()
            assert code != 1, path
            text = shown.out + shown.err
            assert all(char.isprintable() or char == "\n" for char in text), path


def test_markup_in_an_annotation_is_shown_as_it_is(
    forge: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = "[bold red]<img src=x onerror=alert(1)>[/] {{7*7}}"
    statement = forge.statement()
    statement["predicate"]["annotations"] = {"note": note}
    path = tmp_path / "x.budc.json"
    path.write_bytes(forge.policy(statement))
    assert main(["inspect", str(path)]) == 0
    assert note in capsys.readouterr().out


@pytest.mark.parametrize("hidden", ["\u00ad", "\u2060", "\U000e0041", "\u3164", "\ufe0f"])
def test_invisible_characters_in_signed_text_are_shown(
    forge: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], hidden: str
) -> None:
    statement = forge.statement()
    statement["predicate"]["annotations"] = {"note": f"safe{hidden}ty"}
    path = tmp_path / "x.budc.json"
    path.write_bytes(forge.policy(statement))
    assert main(["inspect", str(path)]) == 0
    assert "safe?ty" in capsys.readouterr().out


def test_the_fuzz_target_runs(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "fuzz.py"
    done = subprocess.run(
        [sys.executable, script, "--runs", "400", "--crashes", tmp_path / "crashes"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("400 runs")


@pytest.mark.slow
@pytest.mark.endless
@pytest.mark.parametrize("seed", range(4))
def test_the_fuzz_target_runs_long(tmp_path: Path, seed: int) -> None:
    script = Path(__file__).parents[1] / "fuzz.py"
    done = subprocess.run(
        [sys.executable, script, "--runs", "50000", "--seed", str(seed), "--crashes", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
