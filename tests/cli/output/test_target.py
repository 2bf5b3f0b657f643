import pytest

from budc.cli.output.target import check_target
from budc.schema.errors import OutputError, UsageError


def test_targets_are_refused_early(tmp_path):
    with pytest.raises(UsageError, match=r"suffix '\.avi'"):
        check_target(tmp_path / "x.avi")
    with pytest.raises(UsageError, match=r"\(none\)"):
        check_target(tmp_path / "x")
    with pytest.raises(OutputError, match="cannot write in"):
        check_target(tmp_path / "none" / "x.png")
    (tmp_path / "d.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_target(tmp_path / "d.png")
    assert not (tmp_path / "x.png").exists()
