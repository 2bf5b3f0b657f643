import msgspec
import pytest

from budc.cli.output.summary import measured_on


@pytest.mark.parametrize(
    ("settings", "searched"),
    [
        ({}, "4 others"),
        ({"fit": 4, "judge": 0}, "4 others"),
        ({"fit": 2, "judge": 1}, "3 of 4 others"),
        ({"fit": 1, "judge": 0}, "1 of 4 others"),
        ({"fit": "all", "judge": True}, "4 others"),
        ({"fit": 9, "judge": 0}, "4 others"),
    ],
)
def test_how_many_prompts_a_smaller_effort_used_is_said(make_document, settings, searched):
    document = make_document()
    search = msgspec.structs.replace(document.search, settings=settings)
    calibration = msgspec.structs.replace(document.quality.calibration, size=4)
    quality = msgspec.structs.replace(document.quality, calibration=calibration)
    document = msgspec.structs.replace(document, search=search, quality=quality)
    assert f"; searched on {searched} for the objective " in measured_on(document)
