"""`--device`: an unknown one is refused before weights are read, with those that there are."""

import pytest

pytest.importorskip("torch")


@pytest.fixture
def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a file of a model is hashed."""
    from budc.schema.digest_cache import DigestCache

    def read(*_: object) -> None:
        raise AssertionError("a file was read")

    monkeypatch.setattr(DigestCache, "with_root", read)
    monkeypatch.setattr(DigestCache, "__call__", read)


@pytest.mark.usefixtures("unread")
def test_a_compile_on_a_device_that_is_not_there(budc, tmp_path):
    out = tmp_path / "policy.budc.json"
    outcome = budc("compile", "--model", "wan2.1-nano", "--budget", "4", "--device", "h100", "--out", out)
    assert outcome.code == 2
    assert "--device: 'h100' is no device of this machine" in outcome.err
    assert "cpu" in outcome.err.splitlines()[-1]


def test_where_a_device_says_nothing(budc, tmp_path):
    outcome = budc("verify", tmp_path / "policy.budc.json", "--device", "cpu")
    assert outcome.code == 2
    assert "--replay" in outcome.err
    flags = ("--runtime", "onnxruntime", "--prompt", "a box", "--out", tmp_path / "a.png")
    outcome = budc("run", tmp_path / "policy.budc.json", "--device", "cpu", *flags)
    assert outcome.code == 2
    assert "--provider" in outcome.err
