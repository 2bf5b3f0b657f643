"""The flags of a compile that takes seconds."""

import pytest


@pytest.fixture
def flags(wan_folder, prompt_file, tmp_path, monkeypatch):
    """A compile that takes seconds."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    held_out = tmp_path / "held-out.txt"
    held_out.write_text("a tiny green dot sails right over stripes\na great yellow box goes down on checks\n")
    return {
        "model": "wan2.1-nano",
        "budget": "2",
        "steps": 6,
        **{"height": 32, "width": 48, "frames": 5},
        "weights": wan_folder,
        "calibration": prompt_file,
        "held_out": held_out,
        "out": tmp_path / "policy.budc.json",
    }
