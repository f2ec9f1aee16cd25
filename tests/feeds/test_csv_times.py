"""Times by pattern, as counts and over clock changes, held to `datetime` and `zoneinfo`."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.mapped import times, zone
from tests.feeds.reading import plain, read_file

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLY, LATE = (datetime.fromisoformat(text) for text in ("1971-01-01", "2067-12-31"))
FORMATS = [
    "%Y-%m-%d %H:%M:%S.%f",
    "%m/%d/%Y %H:%M:%S.%f",
    "%Y%m%d%H%M%S%f",
    "%d.%m.%Y %H:%M:%S",
    "%Y-%m-%dT%H:%M:%S.%fZ",
    "%Y-%m-%d %H:%M:%S.%f%z",
    "%d%b%Y:%I:%M:%S.%f%p",
    "%y%m%d %H%M",
]


def micros(moment: datetime) -> int:
    return (moment.replace(tzinfo=UTC) - EPOCH) // timedelta(microseconds=1)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.datetimes(EARLY, LATE), min_size=1, max_size=9),
    st.sampled_from(FORMATS),
)
def test_a_pattern_reads_what_it_writes(moments: list[datetime], pattern: str) -> None:
    texts = [m.replace(tzinfo=UTC).strftime(pattern) for m in moments]
    read = times.read_times(pa.array(texts), pattern)
    wanted = [micros(datetime.strptime(text, pattern)) for text in texts]  # noqa: DTZ007
    assert read.good.all()
    assert read.micros.tolist() == wanted
    assert read.utc == (pattern[-1] in "zZ")


@pytest.mark.parametrize("pattern", FORMATS)
@settings(max_examples=25, deadline=None)
@given(st.lists(st.text("0123456789-/:. TZ+AaPpMmrJjnéx", max_size=30), max_size=8))
def test_what_fits_no_pattern_is_told(pattern: str, texts: list[str]) -> None:
    """Whatever is good must be a time that `strptime` reads as well."""
    read = times.read_times(pa.array(texts, pa.string()), pattern)
    for text, good, at in zip(texts, read.good, read.micros, strict=True):
        if good and "%f" not in pattern and "%z" not in pattern:
            assert micros(datetime.strptime(text, pattern)) == at  # noqa: DTZ007


@pytest.mark.parametrize(
    ("text", "pattern", "wanted"),
    [
        ("2026-03-02 10:00:00.1", FORMATS[0], "2026-03-02T10:00:00.100000"),
        ("2026-03-02 10:00:00.123456789", FORMATS[0], "2026-03-02T10:00:00.123456"),
        ("2026-3-2 9:00:00.5", FORMATS[0], "2026-03-02T09:00:00.500000"),
        ("2024-02-29 00:00:00.0", FORMATS[0], "2024-02-29T00:00:00.000000"),
        ("2026-03-02T10:00:00.5Z", FORMATS[4], "2026-03-02T10:00:00.500000"),
        ("2026-03-02 10:00:00.0-05:30", FORMATS[5], "2026-03-02T15:30:00.000000"),
        ("02mar2026:12:05:00.0am", FORMATS[6], "2026-03-02T00:05:00.000000"),
        ("1394406794", "epoch:s", "2014-03-09T23:13:14.000000"),
        ("1394406794.123456789", "epoch:s", "2014-03-09T23:13:14.123456"),
        ("1394406794123", "epoch:ms", "2014-03-09T23:13:14.123000"),
        ("1394406794123.456", "epoch:ms", "2014-03-09T23:13:14.123456"),
        ("1394406794123456", "epoch:us", "2014-03-09T23:13:14.123456"),
        ("1394406794123456789", "epoch:ns", "2014-03-09T23:13:14.123456"),
        ("1394406794", "epoch:digits", "2014-03-09T23:13:14.000000"),
        ("1394406794123", "epoch:digits", "2014-03-09T23:13:14.123000"),
        ("1394406794123456", "epoch:digits", "2014-03-09T23:13:14.123456"),
        ("1394406794123456789", "epoch:digits", "2014-03-09T23:13:14.123456"),
    ],
)
def test_times(text: str, pattern: str, wanted: str) -> None:
    # Beside others, so that both the fast and the slow way are taken.
    read = times.read_times(pa.array(["", text, "x" * 40]), pattern)
    assert read.good.tolist() == [False, True, False]
    moment = EPOCH + timedelta(microseconds=int(read.micros[1]))
    assert moment.strftime("%Y-%m-%dT%H:%M:%S.%f") == wanted
    assert read.nanos[1] == (789 if text.endswith("123456789") else 0)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("2023-02-29 00:00:00.0", FORMATS[0]),
        ("2026-13-01 00:00:00.0", FORMATS[0]),
        ("2026-00-01 00:00:00.0", FORMATS[0]),
        ("2026-04-31 00:00:00.0", FORMATS[0]),
        ("0000-01-01 00:00:00.0", FORMATS[0]),
        ("2026-03-02 10:00:60.0", FORMATS[0]),
        ("2026-03-02 10:00:00.", FORMATS[0]),
        ("2026-03-02 10:00:00", FORMATS[0]),
        ("2026-03-02 10:00:00.1x", FORMATS[0]),
        ("2026-03-02 10:00:00.5ZZ", FORMATS[4]),
        ("2026-03-02 10:00:00.0123456789", FORMATS[0]),
        ("２026-03-02 10:00:00.0", FORMATS[0]),
        ("2026-03-02T10:00:00.5", FORMATS[4]),
        ("02xyz2026:12:05:00.0am", FORMATS[6]),
        ("02mar2026:13:05:00.0am", FORMATS[6]),
        ("-1", "epoch:s"),
        ("1.5e9", "epoch:s"),
        ("1394406794123.4567891", "epoch:ms"),
        ("99999999999999999999", "epoch:ns"),
        ("9999999999999999999", "epoch:us"),
        ("9223372036854775808", "epoch:ns"),
        ("12345678", "epoch:digits"),
        ("12345678901", "epoch:digits"),
    ],
)
def test_times_that_are_none(text: str, pattern: str) -> None:
    assert times.read_times(pa.array([text, ""]), pattern).good.tolist() == [False, False]


@pytest.mark.parametrize("name", ["Australia/Sydney", "America/New_York", "Asia/Kolkata", "UTC"])
@settings(max_examples=40, deadline=None)
@given(st.lists(st.datetimes(EARLY, LATE), min_size=1, max_size=9))
def test_local_times_as_zoneinfo_reads_them(name: str, moments: list[datetime]) -> None:
    rules = ZoneInfo(name)
    local = np.array([micros(m) for m in moments], np.int64)
    utc, exists = zone.to_utc(local, name, zone.Pass())
    for moment, at, there in zip(moments, utc, exists, strict=True):
        first = moment.replace(tzinfo=rules)
        assert there == (first.astimezone(UTC).astimezone(rules).replace(tzinfo=None) == moment)
        if there:
            both = {int(micros(first.replace(fold=f).astimezone(UTC))) for f in (0, 1)}
            assert int(at) in both
    back = zone.to_local(utc[exists], name)
    assert back.tolist() == local[exists].tolist()


@pytest.mark.parametrize("name", ["Australia/Sydney", "America/New_York"])
def test_stray_dates_cost_no_time_and_spoil_nothing(name: str) -> None:
    texts = ["0001-01-01T12:00", "9999-12-30T12:00", *(f"{y}-12-31T23:30" for y in (1999, 2026))]
    texts += ["2026-07-01T12:00", "2027-01-01T00:30", "1950-07-01T12:00"]
    moments = [datetime.fromisoformat(text) for text in texts]
    utc, exists = zone.to_utc(np.array([micros(m) for m in moments]), name, zone.Pass())
    assert exists.all()
    rules = ZoneInfo(name)
    assert utc[2:].tolist() == [
        micros(m.replace(tzinfo=rules).astimezone(UTC)) for m in moments[2:]
    ]


def _second(text: str) -> int:
    return micros(datetime.fromisoformat(text))


SPRING = "2026-04-05T0"  # the night on which Sydney's clocks go back from 3 to 2


@pytest.mark.parametrize(
    ("locals_", "hours"),
    [
        # Twice through the hour from two to three.
        (
            ["1:59:59", "2:00:00", "2:59:59", "2:00:00", "2:59:59", "3:00:00"],
            [11, 11, 11, 10, 10, 10],
        ),
        # A record that is late by a moment does not turn the clock.
        (["2:30:00", "2:29:59.9", "2:31:00", "2:00:00", "2:00:01"], [11, 11, 11, 10, 10]),
        # Nor does one that is late at the end of the second pass turn it back.
        (["2:50:00", "2:10:00", "2:59:59", "3:00:00", "2:59:59.9"], [11, 10, 10, 10, 10]),
        # Another symbol's day begins: the first pass again.
        (["2:50:00", "2:10:00", "9:00:00", "2:20:00", "2:10:00"], [11, 10, 10, 11, 10]),
        (["2:50:00", "2:10:00", "1:00:00", "2:20:00"], [11, 10, 11, 11]),
        (["2:10:00"], [11]),
    ],
)
def test_a_time_that_occurs_twice_is_told_by_file_order(
    locals_: list[str], hours: list[int]
) -> None:
    local = np.array([_second(SPRING + text) for text in locals_], np.int64)
    wanted = [at - hour * 3_600_000_000 for at, hour in zip(local.tolist(), hours, strict=True)]
    for cut in range(len(local) + 1):
        before = zone.Pass()
        parts = [
            zone.to_utc(part, "Australia/Sydney", before)[0] for part in (local[:cut], local[cut:])
        ]
        assert np.concatenate(parts).tolist() == wanted


def test_a_time_that_never_was_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "2026-10-04 01:59:59.9,1,1\n2026-10-04 02:30:00.0,1,1\n2026-10-04 03:00:00.0,1,1\n"
    )
    found = read_file(path, plain(('zone = "UTC"', 'zone = "Australia/Sydney"')), "trades")
    assert [t.isoformat() for t in found.column("timestamp")] == [
        "2026-10-03T15:59:59.900000+00:00",
        "2026-10-03T16:00:00+00:00",
    ]
    assert found.refused() == [
        (
            2,
            "time",
            'time "2026-10-04 02:30:00.0" never was in Australia/Sydney:'
            " the clocks went forward over it",
        )
    ]


def test_several_columns_formats_and_zones(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "2026-03-02,10:00:00,1,1\n2026-03-02,10:00:00.25,1,1\n1394406794123456789,,1,1\n03/02/2026,,1,1\n"
    )
    mapping = plain(
        ('columns = ["time", "price"', 'columns = ["date", "time", "price"'),
        (
            '{ column = "time", format = "%Y-%m-%d %H:%M:%S.%f" }',
            '{ columns = ["date", "time"], zone = "Asia/Tokyo", format ='
            ' ["%Y-%m-%d %H:%M:%S.%f", "%Y-%m-%d %H:%M:%S", "%m/%d/%Y "] }',
        ),
    )
    found = read_file(path, mapping, "trades")
    assert [t.isoformat() for t in found.column("timestamp")] == [
        "2026-03-02T01:00:00+00:00",
        "2026-03-02T01:00:00.250000+00:00",
        "2026-03-01T15:00:00+00:00",
    ]
    ((line, column, reason),) = found.refused()
    assert (line, column) == (3, "date, time")
    assert reason == 'date, time "1394406794123456789 " is no time'


def test_ids_that_restart_daily_carry_the_exchange_s_date(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("2026-03-02 13:59:00.0,1,1\n2026-03-02 14:01:00.0,1,1\n")
    mapping = plain(
        ('zone = "UTC"', 'zone = "Asia/Tokyo"\nday_roll_seconds = 3600'),
        ("header = false", 'header = false\nid_space = "exchange_date"'),
        ('format = "%Y', 'zone = "UTC", format = "%Y'),
    )
    found = read_file(path, mapping, "trades")
    assert found.column("id_space") == ["2026-03-02", "2026-03-03"]
    assert [date.fromisoformat(text) for text in found.column("id_space")]
