"""When records are due, by a clock that the test turns."""

import numpy as np
import pytest

from k2.errors import BadInput
from k2.pace import PAUSE_SECONDS, TICK_SECONDS, Schedule, parse_speed

SECOND = 1_000_000


def played(schedule: Schedule, times: np.ndarray, stalls: dict[int, float]) -> list[float]:
    """When each record is given, if nobody waits longer than told, but where the reader stalls:
    after the record of that number, for so many seconds.
    """
    now, at, given = 100.0, 0, []
    while at < len(times):
        end, wait = schedule.due(times, at, now)
        if end == at:
            assert wait > 0
            now += wait
            continue
        given += [now] * (end - at)
        for record in range(at, end):
            now += stalls.get(record, 0.0)
        at = end
    return given


@pytest.mark.parametrize("speed", [0.5, 1.0, 10.0, 1_000.0])
def test_records_come_when_they_are_due(speed: float) -> None:
    r = np.random.default_rng(3)
    times = np.sort(r.integers(0, 3_600 * SECOND, 5_000)) + 1_700_000_000 * SECOND
    given = np.array(played(Schedule(speed), times, {}))
    due = 100.0 + (times - times[0]) / speed / SECOND
    late = given - due
    # Never before its time (but for rounding), never later than a batch is long; no drift.
    assert late.min() > -2e-6
    assert late.max() <= TICK_SECONDS + 2e-6
    assert abs(late[-100:].mean() - late[:100].mean()) < TICK_SECONDS


def test_equal_times_come_together() -> None:
    times = np.array([5, 5, 5, 9]) * SECOND
    assert Schedule(1.0).due(times, 0, 7.0) == (3, 0.0)


def test_those_due_soon_are_waited_for_once() -> None:
    schedule = Schedule(1.0)
    times = np.array([0, 100, 200, 10_000])
    assert schedule.due(times, 0, 50.0) == (1, 0.0)
    end, wait = schedule.due(times, 1, 50.0)
    assert end == 1
    assert wait == pytest.approx(TICK_SECONDS)
    assert schedule.due(times, 1, 50.0 + wait) == (3, 0.0)


def test_a_short_stall_is_made_up_for_and_a_long_one_stops_time() -> None:
    times = np.arange(0, 100 * SECOND, SECOND)
    short = PAUSE_SECONDS * 0.9
    given = np.array(played(Schedule(10.0), times, {10: short}))
    assert given[-1] == pytest.approx(100.0 + 9.9, abs=0.01)
    schedule = Schedule(10.0)
    given = np.array(played(schedule, times, {10: 3_600.0}))
    assert given[-1] - given[11] == pytest.approx(8.8, abs=0.01)
    assert schedule.paused_seconds == pytest.approx(3_600 - 0.1, abs=0.01)


def test_at_full_speed_nothing_waits() -> None:
    schedule = Schedule(None)
    assert schedule.due(np.array([0, 10**15]), 0, 1.0) == (2, 0.0)
    assert schedule.after_start(5) is None


@pytest.mark.parametrize(("text", "speed"), [("10", 10.0), ("0.5", 0.5), ("max", None)])
def test_speeds(text: str, speed: float | None) -> None:
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "fast", "", "1e9"])
def test_no_speeds(text: str) -> None:
    with pytest.raises(BadInput, match="is no speed"):
        parse_speed(text)
