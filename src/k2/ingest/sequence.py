"""Numbers that count up by one: which are missing, which came late, where counting began anew.

Comes in: rows of one topic or several, none of them a duplicate. Goes out: what each of them was to
its stream, and the holes that are open afterwards. A stream is an (exchange, symbol, id space).
Holes go by the rows beside them alone, so that no order within a commit changes them.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[np.int64]
Stream: TypeAlias = tuple[str, str, str]
"""Exchange, symbol and id space."""

OK: Final = "ok"
GAP: Final = "gap"
LATE: Final = "late"
RESET: Final = "reset"
DUPLICATE: Final = "duplicate"
UNKNOWN: Final = "unknown"
STATUSES: Final = (OK, GAP, DUPLICATE, LATE, RESET, UNKNOWN)
"""What a record is to its stream: the next number; one that shows a gap; one had before; one that
fills a gap; the first of a new count; one of a source that does not count."""

MOST_HOLES: Final = 1_000
"""Holes of a stream that are kept in memory. Of more, the oldest stand in the ledger alone."""

_RESET_AFTER: Final = timedelta(hours=1) // timedelta(microseconds=1)
"""A number below all that were seen begins a new count if its record is so much later."""


class Mark(NamedTuple):
    """A record by its number: its event time and first sight (microseconds UTC), and its place."""

    number: int
    timestamp: int
    ingested: int
    partition: int
    offset: int


class Hole(NamedTuple):
    """Numbers that are missing between two records. `told`: the gap ledger has it."""

    before: Mark
    after: Mark
    cause: str = "unknown"
    told: bool = False

    @property
    def first(self) -> int:
        """First number that is missing."""
        return self.before.number + 1

    @property
    def last(self) -> int:
        """Last number that is missing, inclusive."""
        return self.after.number - 1


class State(NamedTuple):
    """A stream: all numbers from `base` to that of `top` were had, but for `holes`, ascending."""

    base: int
    top: Mark
    holes: tuple[Hole, ...] = ()


@dataclass(frozen=True)
class Numbered:
    """Rows as columns: row i is of `streams[groups[i]]`. All of a stream stand in log order."""

    streams: Sequence[Stream]
    groups: npt.NDArray[np.int32]
    numbers: Ints
    timestamps: Ints
    ingested: Ints
    partitions: Ints
    offsets: Ints

    def marks(self, rows: Ints) -> list[Mark]:
        """These rows as marks."""
        columns = (self.numbers, self.timestamps, self.ingested, self.partitions, self.offsets)
        return list(map(Mark._make, zip(*(each[rows].tolist() for each in columns), strict=True)))


Run: TypeAlias = tuple[Mark, Mark]
"""Consecutive numbers by their first and last."""


@dataclass
class Tracked:
    """What rows were (`counts`, by status), the streams that are different now, and by `id()` the
    holes that they opened, which stand in these.
    """

    counts: Counter[str] = field(default_factory=Counter)
    changed: dict[Stream, State] = field(default_factory=dict)
    opened: dict[int, tuple[Stream, Hole]] = field(default_factory=dict)


def track(before: Mapping[Stream, State], rows: Numbered) -> Tracked:
    """Take the rows of one commit in: a sort, and a step for each run of consecutive numbers."""
    found = Tracked()
    for group, runs in _runs(rows):
        stream = rows.streams[group]
        state = before.get(stream)
        if state is not None and _begins_anew(state, rows, group, runs[0][0]):
            state = _in_parts(state, rows, group, stream, found)
        else:
            for run in runs:
                state = _take(state, run, stream, found)
        assert state is not None, "every group has a row"
        found.changed[stream] = state
    return found


def bounded(state: State) -> State:
    """The stream with as many holes as memory may hold, without the oldest that were told."""
    more = len(state.holes) - MOST_HOLES
    if more <= 0:
        return state
    told = [hole for hole in state.holes if hole.told][:more]
    gone = {hole.first for hole in told}
    return state._replace(holes=tuple(hole for hole in state.holes if hole.first not in gone))


def _runs(rows: Numbered) -> Iterator[tuple[int, list[Run]]]:
    """Of each group its runs of consecutive numbers, ascending."""
    if not len(rows.numbers):
        return
    groups, numbers = rows.groups, rows.numbers
    small = len(rows.streams) < 65536  # numpy sorts 16-bit codes by radix
    order = np.argsort(groups.astype(np.uint16) if small else groups, kind="stable")
    group, number = groups[order], numbers[order]
    same = group[1:] == group[:-1]
    if (same & (number[1:] <= number[:-1])).any():
        order = np.lexsort((numbers, groups))
        group, number = groups[order], numbers[order]
        same = group[1:] == group[:-1]
    starts = np.flatnonzero(np.append(True, ~same | (number[1:] != number[:-1] + 1)))
    ends = np.append(starts[1:], len(order)) - 1
    firsts, lasts = rows.marks(order[starts]), rows.marks(order[ends])
    of = group[starts].tolist()
    at = 0
    while at < len(of):
        end = at + 1
        while end < len(of) and of[end] == of[at]:
            end += 1
        yield of[at], list(zip(firsts[at:end], lasts[at:end], strict=True))
        at = end


def _anew(state: State, rows: Numbered, mine: Ints) -> npt.NDArray[np.bool_]:
    late = rows.timestamps[mine] > state.top.timestamp + _RESET_AFTER
    return np.asarray(late & (rows.numbers[mine] < state.base))


def _begins_anew(state: State, rows: Numbered, group: int, least: Mark) -> bool:
    if least.number >= state.base:
        return False
    return bool(_anew(state, rows, np.flatnonzero(rows.groups == group)).any())


def _in_parts(state: State, rows: Numbered, group: int, stream: Stream, found: Tracked) -> State:
    """Rows of a stream up to where it begins anew, and then those from there on."""
    mine = np.flatnonzero(rows.groups == group)
    at = int(np.argmax(_anew(state, rows, mine)))
    for run in _runs_of(rows, mine[:at]):
        state = _take(state, run, stream, found)
    (first, last), *others = _runs_of(rows, mine[at:])
    found.counts[RESET] += 1
    found.counts[OK] += last.number - first.number
    state = State(first.number, last)
    for run in others:
        state = _take(state, run, stream, found)
    return state


def _runs_of(rows: Numbered, mine: Ints) -> list[Run]:
    order = mine[np.argsort(rows.numbers[mine], kind="stable")]
    if not len(order):
        return []
    starts = np.append(0, np.flatnonzero(np.diff(rows.numbers[order]) != 1) + 1)
    ends = np.append(starts[1:], len(order)) - 1
    return list(zip(rows.marks(order[starts]), rows.marks(order[ends]), strict=True))


def _take(state: State | None, run: Run, stream: Stream, found: Tracked) -> State:
    """Take in numbers of which the stream had none."""
    first, last = run
    count = last.number - first.number + 1
    if state is None:
        found.counts[OK] += count
        return State(first.number, last)
    if first.number == state.top.number + 1:
        found.counts[OK] += count
        return State(state.base, last, state.holes)
    if first.number > state.top.number:
        found.counts[GAP] += 1
        found.counts[OK] += count - 1
        hole = Hole(state.top, first)
        found.opened[id(hole)] = (stream, hole)
        return State(state.base, last, (*state.holes, hole))
    at = bisect_right(state.holes, first.number, key=lambda hole: hole.first) - 1
    if at < 0 or state.holes[at].last < last.number:
        # A past that is brought in, or a hole that memory does not hold any more.
        found.counts[OK] += count
        base = first.number if last.number + 1 == state.base else state.base
        return State(base, state.top, state.holes)
    found.counts[LATE] += count
    hole = state.holes[at]
    left = [hole._replace(after=first)] if first.number > hole.first else []
    right = [hole._replace(before=last)] if last.number < hole.last else []
    if found.opened.pop(id(hole), None) is not None:
        found.opened |= {id(each): (stream, each) for each in (*left, *right)}
    holes = (*state.holes[:at], *left, *right, *state.holes[at + 1 :])
    return State(state.base, state.top, holes)
