from datetime import UTC, datetime, timedelta, timezone

import pytest

from budc.schema.errors import SemanticsViolation, UsageError
from budc.schema.timestamps import format_time, issue_time, parse_time


def test_moments_are_written_in_utc_to_the_second() -> None:
    east = timezone(timedelta(hours=2))
    assert format_time(datetime(2026, 7, 1, 14, 0, 0, 999_999, tzinfo=east)) == "2026-07-01T12:00:00Z"


def test_parsing_inverts_writing() -> None:
    moment = datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC)
    assert parse_time(format_time(moment), field="issuedAt") == moment


@pytest.mark.parametrize(
    "text", ["2026-02-29T00:00:00Z", "2026-7-01T00:00:00Z", "2026-07-01T00:00:60Z", "", "now"]
)
def test_what_is_no_moment_is_refused_by_field(text: str) -> None:
    with pytest.raises(SemanticsViolation, match="issuedAt"):
        parse_time(text, field="issuedAt")


def test_source_date_epoch_sets_the_issue_time() -> None:
    assert issue_time({"SOURCE_DATE_EPOCH": "0"}) == "1970-01-01T00:00:00Z"
    assert issue_time({"SOURCE_DATE_EPOCH": "253402300799"}) == "9999-12-31T23:59:59Z"


def test_without_source_date_epoch_it_is_now() -> None:
    age = datetime.now(UTC) - parse_time(issue_time({}), field="issuedAt")
    assert timedelta(0) <= age < timedelta(minutes=1)


@pytest.mark.parametrize(
    "epoch", ["", "1.5", "yesterday", "9" * 30, "1_000", " 12 ", "-1", "+1", "\u0661", "253402300800"]
)
def test_a_senseless_source_date_epoch_is_refused(epoch: str) -> None:
    with pytest.raises(UsageError, match="SOURCE_DATE_EPOCH"):
        issue_time({"SOURCE_DATE_EPOCH": epoch})
