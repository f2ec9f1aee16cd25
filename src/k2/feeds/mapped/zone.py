"""Local time to UTC and back, in columns, by the clock changes of one time zone.

A local time that occurs twice is told apart by file order: the first pass is the earlier; once the
clock is seen to go back, the second. One that does not exist is said not to.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND: Final = 1_000_000
_YEAR: Final = 365 * 86_400 * _SECOND
# Python's calendar ends at the years 1 and 9999, and those around a year are looked at as well.
_FIRST, _LAST = (
    (datetime(year, 6, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) for year in (3, 9996)
)
JITTER: Final = 60 * _SECOND
"""Records that are late by less than this (microseconds) do not mean that the clock went back."""


@dataclass
class Pass:
    """What must be remembered of the record before, to tell a local time that occurs twice."""

    local: int | None = None
    change: int = -1
    """The clock change (microseconds UTC) around which the record before is ambiguous; else -1."""
    second: bool = False


def to_utc(local: Ints, zone: str, before: Pass) -> tuple[Ints, Mask]:
    """UTC of local microseconds in file order, and which of them exist; moves `before` on."""
    if len(local) == 0:
        return local, np.ones(0, bool)
    instants, offsets = _changes(zone, local)
    ends_early = instants + offsets[:-1]
    ends_late = instants + offsets[1:]
    early = np.searchsorted(ends_early, local, "right")
    late = np.searchsorted(ends_late, local, "right")
    exists = late >= early
    twice = late > early
    if twice.any() or before.change != -1:
        second = _second_pass(local, twice, np.where(twice, instants[late - 1], -1), before)
        chosen = np.where(second, late, early)
    else:
        chosen = early
    last = len(local) - 1
    before.local = int(local[last])
    if twice[last]:
        before.change = int(instants[late[last] - 1])
        before.second = bool(chosen[last] == late[last])
    else:
        before.change, before.second = -1, False
    return local - offsets[chosen], exists


def _second_pass(local: Ints, twice: Mask, change: Ints, before: Pass) -> Mask:
    """Which of the ambiguous times (`twice`) belong to the second pass of the clock."""
    first = before.local is None
    previous = np.concatenate([[local[0] if first else before.local], local[:-1]])
    previous_change = np.concatenate([[before.change], change[:-1]])
    step = local - previous
    # Between two records around one change: back by more than jitter means the second pass; else
    # as the record before. After a record from outside: the second pass only if that one stood
    # just behind the hour, for a late record; everything else begins the first pass.
    inside = twice & (previous_change == change)
    to_second = twice & np.where(inside, step < -JITTER, (step < 0) & (step >= -JITTER))
    if first:
        to_second[0] = False
    sets = (twice & ~inside) | to_second
    at = np.maximum.accumulate(np.where(sets, np.arange(len(local)), -1))
    carried = np.where(at >= 0, to_second[np.maximum(at, 0)], before.second)
    return twice & carried


def to_local(utc: Ints, zone: str) -> Ints:
    """Local microseconds of microseconds UTC."""
    if len(utc) == 0:
        return utc
    instants, offsets = _changes(zone, utc)
    local: Ints = utc + offsets[np.searchsorted(instants, utc, "right")]
    return local


def _changes(zone: str, micros: Ints) -> tuple[Ints, Ints]:
    """Clock changes (microseconds UTC) around these times, and the offsets before and after."""
    low, high = (_year(int(edge)) for edge in (micros.min(), micros.max()))
    years = set(range(low, min(low + 3, high + 1)))
    if high - low > 2:
        # One stray date, of the year 1 or 9999, must not cost all the years between.
        years = {_year(int(micro)) for micro in np.unique(micros // _YEAR) * _YEAR}
    instants: list[int] = []
    offsets = [_changes_of_year(zone, min(years) - 1)[1]]
    before = None
    for year in sorted({year + step for year in years for step in (-1, 0, 1, 2)}):
        begin, offset, changes = _changes_of_year(zone, year)
        if before is not None and year != before + 1:
            changes = [(begin, offset), *changes]  # from years before, none of which is asked for
        instants += [instant for instant, _ in changes]
        offsets += [offset for _, offset in changes]
        before = year
    return np.array(instants, np.int64), np.array(offsets, np.int64)


def _year(micros: int) -> int:
    inside = min(max(micros, _FIRST), _LAST)
    return (_EPOCH + timedelta(microseconds=inside)).year


@cache
def _changes_of_year(zone: str, year: int) -> tuple[int, int, list[tuple[int, int]]]:
    """When the year (UTC) begins, the offset then, and the changes: instant and offset after it."""
    rules = ZoneInfo(zone)

    def offset(second: int) -> int:
        moment = _EPOCH + timedelta(seconds=second)
        return int(
            (moment.astimezone(rules).utcoffset() or timedelta(0)) / timedelta(microseconds=1)
        )

    begin, end = (
        int((datetime(y, 1, 1, tzinfo=UTC) - _EPOCH).total_seconds()) for y in (year, year + 1)
    )
    found, at = [], begin
    while at < end:
        until = min(at + 86_400, end)
        if offset(at) != offset(until):
            low, high = at, until
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offset(at) else (low, middle)
            found.append((high * _SECOND, offset(high)))
        at = until
    return begin * _SECOND, offset(begin), found
