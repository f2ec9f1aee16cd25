"""By age and by size, and never what is not committed."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from k2.log import Append, Trimmed, retain
from k2.log.sqlite import SqliteLog

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
ALWAYS = timedelta(days=10_000)


class Clock:
    now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def log(tmp_path: Path, clock: Clock) -> Iterator[SqliteLog]:
    """Topics t and u with two partitions; each hour of a day a batch of ten into each."""
    with closing(SqliteLog(tmp_path / "log.db", clock=clock)) as opened:
        for topic in "tu":
            opened.create(topic, 2)
        for hour in range(24):
            clock.now = START + hour * HOUR
            values = pa.array([bytes([hour]) * 1000] * 10, pa.binary())
            opened.append([Append(topic, part, 1, values) for topic in "tu" for part in (0, 1)])
        yield opened


def starts(log: SqliteLog) -> list[int]:
    return [log.start_offset(topic, partition) for topic in "tu" for partition in (0, 1)]


def test_what_is_old_goes_where_it_is_committed(log: SqliteLog) -> None:
    safe = {("t", 0): 240, ("t", 1): 45, ("u", 0): 0}
    now = START + 24 * HOUR
    assert retain(log, safe, max_age=12 * HOUR, max_bytes=None, now=now) == [
        Trimmed("t", 0, 0, 120),
        Trimmed("t", 1, 0, 40),
    ]
    assert starts(log) == [120, 40, 0, 0]
    assert retain(log, safe, max_age=12 * HOUR, max_bytes=None, now=now) == []
    assert retain(log, {}, max_age=timedelta(0), max_bytes=0, now=now) == []


def test_what_is_too_large_goes_where_it_is_committed(log: SqliteLog) -> None:
    each = log.size("t", 0) // 24 + 1  # they differ by a byte or two
    safe = {("t", 0): 240, ("t", 1): 45}
    trimmed = retain(log, safe, max_age=ALWAYS, max_bytes=6 * each, now=START + 24 * HOUR)
    assert trimmed == [Trimmed("t", 0, 0, 180), Trimmed("t", 1, 0, 40)]
    assert log.size("t", 0) <= 6 * each
    assert starts(log)[2:] == [0, 0]


def test_a_log_made_anew_is_not_emptied(log: SqliteLog) -> None:
    """The table knows more offsets than the log has: they are of another log."""
    safe = {("t", 0): 1 << 40}
    retain(log, safe, max_age=ALWAYS, max_bytes=0, now=START)
    assert log.start_offset("t", 0) == log.end_offset("t", 0) == 240


@pytest.mark.parametrize(("size", "kept_from"), [(1, 200), (200, 200), (201, 0), (199, 199)])
def test_not_one_message_too_many_goes(log: SqliteLog, size: int, kept_from: int) -> None:
    log.create("v", 1)
    values = pa.array([b"x"] * size, pa.binary())
    log.append([Append("v", 0, 1, values)] * (1000 // size))
    retain(log, {("v", 0): 200}, max_age=ALWAYS, max_bytes=0, now=START)
    assert log.start_offset("v", 0) == kept_from


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=20),
    part=st.fractions(0, 1),
    limit=st.integers(0, 30_000),
    age=st.integers(0, 20),
)
def test_nothing_that_must_stay_goes(
    log: SqliteLog, clock: Clock, counts: list[int], part: float, limit: int, age: int
) -> None:
    topic = f"t{len(log.topics())}"
    log.create(topic, 1)
    for hour, count in enumerate(counts):
        clock.now = max(clock.now, START + hour * HOUR)
        values = pa.array([bytes([hour, 7, 9]) * 100] * count, pa.binary())
        log.append([Append(topic, 0, 1, values)])
    safe = int(part * sum(counts))
    retain(log, {(topic, 0): safe}, max_age=age * HOUR, max_bytes=limit, now=clock.now)
    start = log.start_offset(topic, 0)
    assert start <= safe
    # What stays and could go is a batch that reaches past the safe offset, or within the limit.
    ends = [sum(counts[: n + 1]) for n in range(len(counts))]
    could_go = [end for end in ends if start < end <= safe]
    assert not could_go or log.size(topic, 0) <= limit
