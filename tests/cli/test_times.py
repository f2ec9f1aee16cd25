"""Times as people type them."""

from datetime import UTC, date, datetime, timedelta

import pytest

from k2.cli.times import parse_day, parse_when
from k2.errors import BadInput

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def when(text: str) -> datetime | date:
    return parse_when(text, lambda: NOW)


def test_times_with_a_zone_become_utc() -> None:
    expected = datetime(2014, 3, 9, 23, 0, 0, 123000, tzinfo=UTC)
    assert when("2014-03-10T10:00:00.123+11:00") == expected
    assert when("2014-03-09T23:00:00.123Z") == expected
    assert when("2014-03-09 23:00:00.123000+00:00") == expected


def test_dates_stay_dates() -> None:
    found = when("2014-03-10")
    assert found == date(2014, 3, 10)
    assert not isinstance(found, datetime)
    assert parse_day(" 2014-03-10 ") == found


@pytest.mark.parametrize(
    ("text", "distance"),
    [
        ("-15m", timedelta(minutes=15)),
        ("-2h", timedelta(hours=2)),
        ("-30s", timedelta(seconds=30)),
        ("-1d", timedelta(days=1)),
        ("-2w", timedelta(weeks=2)),
        ("now", timedelta()),
    ],
)
def test_distances_go_back_from_now(text: str, distance: timedelta) -> None:
    assert when(text) == NOW - distance


@pytest.mark.parametrize(
    "text",
    [
        "",
        "15m",
        "-15",
        "-15y",
        "2014-02-30",
        "2014-03-10T10:00",
        "tomorrow",
        "1394406000",
        "-999999w",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        when(text)
    assert caught.value.expected
