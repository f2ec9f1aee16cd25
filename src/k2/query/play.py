"""A replay at its pace: each record when it is due, the next ones fetched meanwhile.

Comes in: a replay and a speed. Goes out: batches. A reader that does not ask for the next one has
everything wait, and time with it.
"""

import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pyarrow as pa

from k2.pace import FASTEST, Schedule
from k2.query.answer import Answer, told
from k2.query.position import Position
from k2.query.replay import Part, Replay
from k2.query.zones import from_us

POLL_SECONDS: Final = 0.05
"""How often it is looked whether something has arrived."""

Wait = Callable[[float], bool]
"""Waits so many seconds, or less; whether the replay is to end."""


@dataclass(frozen=True)
class Played:
    """Records that are due together, in order: `kind`, then the columns of all kinds.

    `due` is how long after the replay's first record the first of these is due; None at full speed,
    and of live records, which are in the order of their arrival.
    """

    records: pa.Table
    due: timedelta | None
    is_live: bool
    place: Position
    question: str

    @property
    def position(self) -> str:
        """Where a replay goes on that has given these: nothing is missed or repeated."""
        return self.place.to_text(self.question)


def sleep(seconds: float) -> bool:
    """Wait; the replay never ends by it."""
    time.sleep(seconds)
    return False


def play(
    replay: Replay,
    schedule: Schedule,
    *,
    rows: int,
    timeout: float | None = None,
    clock: Callable[[], float] = time.monotonic,
    wait: Wait = sleep,
) -> Generator[Played, None, None]:
    """Batches of at most `rows`, each when it is due by `schedule` and `clock`, a monotonic one.

    `timeout` (seconds) is what fetching some may take. Ends with the records, unless what arrives
    was asked for as well, or once `wait` says so.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="k2-replay") as thread:
        ahead: Future[Part | None] | None = None
        while True:
            part = replay.read(timeout) if ahead is None else ahead.result()
            ahead = None
            if part is None:
                if replay.is_done or wait(POLL_SECONDS):
                    return
                continue
            if not part.is_live:
                ahead = thread.submit(copy_context().run, replay.read, timeout)
            for played in _paced(replay, part, schedule, rows, clock, wait):
                if played is None:
                    return
                yield played


def to_played(replay: Replay, part: Part, due: float | None) -> Played:
    """A part as whoever asked gets it; `due` is in seconds after the first record."""
    delay = None if due is None else timedelta(seconds=due)
    return Played(part.records, delay, part.is_live, part.end, replay.asked.question)


def _paced(
    replay: Replay,
    part: Part,
    schedule: Schedule,
    rows: int,
    clock: Callable[[], float],
    wait: Wait,
) -> Iterator[Played | None]:
    """The part in batches as they are due; None at last where `wait` has ended it."""
    if part.is_live:
        yield to_played(replay, part, None)
        return
    times, at = part.times, 0
    # What is caught up with has happened while the rest was played: it is late already.
    pace = Schedule(None) if part.end.told else schedule
    while at < len(times):
        end, seconds = pace.due(times, at, clock())
        if end == at:
            if wait(seconds):
                yield None
                return
            continue
        end = min(end, at + rows)
        yield to_played(replay, part.cut(at, end), pace.after_start(int(times[at])))
        at = end


def page_of(replay: Replay, rows: int, speed: float | None) -> Answer:
    """The next `rows` records, and `next`: the position behind them.

    `meta.replay` has the `speed`, the time of the replay's first record (`origin`), how many
    seconds after it the first of these is due (`due_seconds`), and the `position` before them.
    """
    began = time.perf_counter()
    before = replay.position.to_text(replay.asked.question)
    parts: list[Part] = []
    while sum(part.table.num_rows for part in parts) <= rows:
        if (part := replay.read()) is None:
            break
        parts.append(part)
    following, due, origin = None, 0.0, None
    table = replay.asked.columns.empty_table()
    if parts:
        page = Part(pa.concat_tables([p.table for p in parts]), parts[-1].end, parts[0].base)
        if page.table.num_rows > rows:
            page = page.cut(0, rows)
            following = page.end.to_text(replay.asked.question)
        table, origin = page.records, page.end.origin
        if origin is not None and speed is not None:
            due = (int(page.times[0]) - origin) / speed / 1_000_000
    meta = told(replay.views.values(), table, began, past=replay.asked.past)
    meta["replay"] = {
        "speed": speed or FASTEST,
        "origin": None if origin is None else from_us(origin).isoformat(),
        "due_seconds": due,
        "position": before,
    }
    return Answer(table, meta, following)
