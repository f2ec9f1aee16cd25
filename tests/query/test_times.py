from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from k2.errors import BadInput
from k2.model import Exchange
from k2.query.interval import midnights_of
from k2.query.selection import Condition, parse_conditions
from k2.query.times import parse_date, parse_instant, parse_when
from k2.query.zones import from_us, midnight, midnights, to_us

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2014-03-10T23:00:00Z", datetime(2014, 3, 10, 23, tzinfo=UTC)),
        ("2014-03-11T10:00:00+11:00", datetime(2014, 3, 10, 23, tzinfo=UTC)),
        ("2014-03-11 10:00:00.123456+11:00", datetime(2014, 3, 10, 23, 0, 0, 123456, tzinfo=UTC)),
        ("2014-03-11", date(2014, 3, 11)),
        ("now", NOW),
        ("-15m", NOW - timedelta(minutes=15)),
        ("-90s", NOW - timedelta(seconds=90)),
        ("-1h", NOW - timedelta(hours=1)),
        ("-2d", NOW - timedelta(days=2)),
        ("- 1w", NOW - timedelta(weeks=1)),
    ],
)
def test_times_as_people_type_them(text: str, expected: datetime | date) -> None:
    found = parse_when(text, NOW)
    assert found == expected
    assert isinstance(found, datetime) == isinstance(expected, datetime)


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "15m", "+15m", "-15", "-15y", "2014-13-01", "2014-02-30", "11.3.2014",
     "2014-03-11T25:00:00Z", "-999999999w", "0001-01-01T00:00:00+14:00", "2014-03-11T10:00:00",
     "1394492400", "２０１４-03-11", "2014-W10-1", "20140311", "' or 1=1"],
)  # fmt: skip
def test_what_is_no_time_is_told_with_examples(text: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_when(text, NOW)
    assert "2014-03-11" in (caught.value.expected or "")


def test_a_zone_may_be_given_for_times_without_one() -> None:
    assert parse_when("2014-03-11T10:00:00", NOW, "Australia/Sydney") == datetime(
        2014, 3, 10, 23, tzinfo=UTC
    )


def test_instants_and_dates_take_nothing_else() -> None:
    assert parse_instant("2014-03-11T10:00:00+11:00") == datetime(2014, 3, 10, 23, tzinfo=UTC)
    assert parse_date(" 2014-03-11 ") == date(2014, 3, 11)
    for text in ("-15m", "2014-03-11", "x"):
        with pytest.raises(BadInput):
            parse_instant(text)
    for text in ("2014-03-11T00:00:00Z", "11/3/2014", "2014-02-30"):
        with pytest.raises(BadInput):
            parse_date(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price>=36.1", Condition("price", ">=", "36.1")),
        (" price  <  36.1 ", Condition("price", "<", "36.1")),
        ("side==BUY", Condition("side", "=", "BUY")),
        ("side <> 'BUY'", Condition("side", "!=", "BUY")),
        ('conditions="a b"', Condition("conditions", "=", "a b")),
        ("trade_id=a=b", Condition("trade_id", "=", "a=b")),
        ("trade_id='", Condition("trade_id", "=", "'")),
    ],
)
def test_conditions_are_column_operator_literal(text: str, expected: Condition) -> None:
    assert parse_conditions([text]) == (expected,)


@pytest.mark.parametrize("text", ["", "price", "price>", ">1", "price like 1", "1=1", "a b=1"])
def test_what_is_no_condition_is_told(text: str) -> None:
    with pytest.raises(BadInput, match="no condition"):
        parse_conditions([text])


@pytest.mark.parametrize(
    "zone", ["UTC", "Australia/Sydney", "America/Sao_Paulo", "Australia/Lord_Howe", "Asia/Kolkata"]
)
def test_midnights_are_the_first_instants_of_dates(zone: str) -> None:
    first, last = date(2017, 12, 30), date(2019, 1, 2)
    begin = midnights(zone, first, last)
    assert len(begin) == (last - first).days + 1
    assert np.all(np.diff(begin) > 0)
    for n, at in enumerate(begin):
        day = first + timedelta(days=n)
        assert from_us(int(at)).astimezone(ZoneInfo(zone)).date() == day
        before = from_us(int(at) - 1).astimezone(ZoneInfo(zone)).date()
        assert before == day - timedelta(days=1)
        assert to_us(midnight(zone, day)) == at


def test_a_common_shift_is_only_used_where_there_is_one() -> None:
    of = {"a": Exchange("a", "equities", "Australia/Sydney"), "b": Exchange("b", "crypto", "UTC")}
    hour, quarter = 3_600_000_000, 900_000_000
    assert midnights_of(of, date(2024, 1, 1), date(2024, 12, 31)).shift(hour) is not None
    assert midnights_of(of, date(2024, 1, 1), date(2024, 1, 9)).shift(4 * hour) is None
    # Sydney alone, in summer time only, and over the end of it.
    mine = {"a": of["a"]}
    assert midnights_of(mine, date(2024, 1, 1), date(2024, 1, 9)).shift(4 * hour) is not None
    assert midnights_of(mine, date(2024, 4, 1), date(2024, 4, 9)).shift(4 * hour) is None
    odd = {"c": Exchange("c", "equities", "Asia/Kathmandu")}
    shift = midnights_of(odd, date(2024, 1, 1), date(2024, 1, 9)).shift(hour)
    assert shift is not None
    assert shift % hour == 3 * quarter
