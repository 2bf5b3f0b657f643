"""Remedies that install: a command that works for how budc was installed."""

import json
from pathlib import Path
from typing import Any

import pytest

from budc.schema import installation


class Distribution:
    def __init__(self, record: Any) -> None:
        self.record = record

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.record is None else json.dumps(self.record)


@pytest.mark.parametrize(
    ("record", "command"),
    [
        (None, "pip install 'budc[torch]'"),
        ({"url": "https://example.org/budc.whl", "archive_info": {}}, "pip install 'budc[torch]'"),
        ({"url": "file:///a%20b", "dir_info": {"editable": True}}, "pip install -e '/a b[torch]'"),
        ({"url": "file:///a", "dir_info": {}}, "pip install -e '/a[torch]'"),
    ],
)
def test_the_command_fits_the_installation(
    monkeypatch: pytest.MonkeyPatch, record: Any, command: str
) -> None:
    monkeypatch.setattr(installation, "distribution", lambda name: Distribution(record))
    assert installation.install("torch") == command


def test_pins_of_a_checkout_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").touch()
    record = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    monkeypatch.setattr(installation, "distribution", lambda name: Distribution(record))
    assert installation.install("onnx") == f"pip install -c {tmp_path}/constraints.txt -e '{tmp_path}[onnx]'"
