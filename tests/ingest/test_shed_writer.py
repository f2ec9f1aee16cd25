"""A writer that is overloaded steps back, and comes forward by itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from k2.ingest import CommitLimits, Writer, WriterOptions
from k2.ingest.board import WriterLevel, levels
from k2.ingest.degradation import Level, Thresholds, Trigger
from k2.ingest.overload import OverloadOptions
from tests.ingest.test_shed import FIRST, append, entries_of, shedding, sums, work
from tests.journeys.home import SKEW, Home, now

RISING = ["SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK"]
WAIT = 120.0


def options(*lags: int) -> WriterOptions:
    """Levels that begin at these lags, and are left soon."""
    rising = sorted(Level)[1:]
    triggers = {level: Trigger(lag, 2.0) for level, lag in zip(rising, lags, strict=True)}
    return WriterOptions(
        limits=CommitLimits(rows=1_000, interval=timedelta(milliseconds=50)),
        skew=SKEW,
        overload=OverloadOptions(Thresholds(triggers, calm_seconds=0.2, break_seconds=0.2)),
    )


class Held:
    """A writer that can be held up at a commit: soon it reads no more, and what comes is lag."""

    def __init__(
        self, home: Home, options: WriterOptions, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self.home = home
        self._meanwhile = meanwhile
        self.go = threading.Event()
        self.go.set()
        self._ended = threading.Event()
        writer = Writer(home.log, home.registry, home.lake, options, self._step)
        self._thread = threading.Thread(target=writer.run, args=(self._ended.is_set,))
        self._thread.start()

    def _step(self, step: str) -> None:
        assert self.go.wait(2 * WAIT)
        if step == "files":
            self._meanwhile()

    def told(self) -> WriterLevel | None:
        """What the writer says of itself."""
        return next(iter(levels(self.home.log, now())), None)

    def seen(self) -> list[str]:
        """The levels that it came to, oldest first."""
        found = self.told()
        return [change["after"] for change in found.history] if found else []

    def until(self, reached: Callable[[], bool], what: str) -> None:
        end = now() + timedelta(seconds=WAIT)
        while not reached():
            assert now() < end, (what, self.seen())
            self._ended.wait(0.1)

    def end(self) -> None:
        self.go.set()
        self._ended.set()
        self._thread.join()


@contextmanager
def held(home: Home, options: WriterOptions) -> Iterator[Held]:
    """A writer that has committed ten records, and is held up from now on."""
    append(home, 10)
    writer = Held(home, options)
    try:
        writer.until(lambda: sums(home).committed == 10, "the first records")
        writer.go.clear()
        yield writer
    finally:
        writer.end()


def recovered(writer: Held, made: int) -> None:
    """Let it go on: in the end all is in, and it is calm."""
    writer.go.set()

    def is_calm() -> bool:
        told = writer.told()
        return told is not None and told.level is Level.NORMAL

    writer.until(lambda: is_calm() and sums(writer.home).committed == made, "all is in")


def test_a_writer_steps_back_and_comes_forward_by_itself(home: Home) -> None:
    """Levels rise as the lag does, BTC and ETH come in all the time, and in the end all is in."""
    with held(home, options(50, 100, 200, 1 << 40)) as writer:
        made = 10
        for seed in range(2, 60):
            made += append(home, 3_000, seed).num_rows
            if "AGGRESSIVE" in writer.seen():
                break
            threading.Event().wait(0.3)
        recovered(writer, made)
        seen = writer.seen()
    total = sums(home)
    assert (total.committed, total.shed, total.in_flight) == (made, 0, 0)
    assert {*RISING[:3], "NORMAL"} == set(seen)
    assert levels(home.log, now()) == []
    shed = [entry for entry in entries_of(home) if entry["event"] == "shed"]
    assert shed
    assert all(FIRST.isdisjoint(entry["symbols"].split()) for entry in shed)


def test_only_the_third_tier_at_the_last_level_recovers(home: Home) -> None:
    """Nothing that it could commit comes, and it comes forward all the same."""
    with held(home, options(50, 100, 200, 400)) as writer:
        made = 10
        for seed in range(2, 60):
            made += append(home, 3_000, seed, leave_out=FIRST).num_rows
            if "CIRCUIT_BREAK" in writer.seen():
                break
            threading.Event().wait(0.3)
        recovered(writer, made)
    total = sums(home)
    assert (total.committed, total.shed, total.in_flight) == (made, 0, 0)
    broken = [entry for entry in entries_of(home) if entry["level"] == Level.CIRCUIT_BREAK]
    assert broken, "what stood in the log at the last level is shed as it is"


def test_a_backlog_is_worked_off_and_raises_no_level(home: Home) -> None:
    made = append(home, 20_000).num_rows
    writer = Held(home, options(50, 100, 200, 400))
    try:
        recovered(writer, made)
        assert writer.seen() == []
    finally:
        writer.end()
    assert entries_of(home) == []


def test_what_was_shed_comes_in_while_records_come_all_the_time(home: Home) -> None:
    made = [append(home, 3_000).num_rows]
    work(home, shedding())
    assert sums(home).shed
    made.append(append(home, 10, seed=100).num_rows)

    def more() -> None:
        """During each commit some come that wait for the next: there is always one that waits."""
        if home.lake.table("trades").snapshot().shed:
            made.append(append(home, 5, seed=100 + len(made)).num_rows)
            time.sleep(0.2)

    writer = Held(home, options(1 << 37, 1 << 38, 1 << 39, 1 << 40), more)
    try:
        writer.until(lambda: not home.lake.table("trades").snapshot().shed, "it comes in")
        writer.until(lambda: sums(home).committed == sum(made), "and all others")
    finally:
        writer.end()
