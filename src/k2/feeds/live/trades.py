"""The trades of one feed, by symbol: which are new, which are missing, and what is done about it.

A hole waits a moment for what is only out of order, is then asked for from the venue's history, and
is given up when the venue has answered several times without it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from k2.feeds.live.columns import Gap
from k2.feeds.live.history import Done, Job, Look, Newest
from k2.feeds.live.holes import Hole, Ids
from k2.feeds.live.position import Had
from k2.feeds.live.venue import FEED_DOWN, Frame, Trade

GRACE: Final = 0.5
"""Seconds that a hole of a live stream waits for what is only out of order."""
AGAIN: Final = 1.0
"""Seconds after which the venue is asked again for what its history did not have."""
MOST_ASKED: Final = 3
"""So often, before a trade that is not there is given up."""
MOST_A_JOB: Final = 5_000
"""So many trades are asked for at once: other symbols shall have their turn."""


@dataclass
class _Symbol:
    ids: Ids
    time: int
    """Time of the last trade before the first hole, nanoseconds UTC; 0: not known."""
    interrupted: str | None = None
    """The cause of the next hole: the stream was cut, and no trade since was the one that follows
    on what was had (a venue's history may lag behind its stream)."""
    missed: bool = False
    """The stream was cut, and the venue's history was not asked yet what it had meanwhile."""
    cause: str = "unknown"
    ask_at: float | None = None
    job: Job | None = None
    asked: dict[int, int] = field(default_factory=dict)
    """How often the venue answered without the hole that begins at an id."""
    behind: dict[int, int] = field(default_factory=dict)
    """Times of the trades that stand right behind a hole."""
    heard: float = 0.0
    looking: bool = False
    doubted: bool = False
    """The venue has a newer trade than the stream, which may be on its way."""


class Trades:
    """All symbols' trades. Times are nanoseconds UTC, `now` seconds of a monotonic clock."""

    def __init__(self, symbols: Sequence[str], position: Mapping[str, Had], stale: float) -> None:
        self._stale = stale
        self._cut: list[str] = []
        self._symbols: dict[str, _Symbol] = {}
        for name in symbols:
            had = position.get(name)
            self._symbols[name] = (
                _Symbol(Ids(), 0)
                if had is None
                else _Symbol(Ids(had.last, had.beyond), had.time, FEED_DOWN, missed=True)
            )

    def take(
        self, rows: Sequence[Trade], frames: Sequence[Frame], now: float
    ) -> tuple[list[Trade], list[Frame]]:
        """Those trades that were not had before."""
        new: list[Trade] = []
        new_frames: list[Frame] = []
        for row, frame in zip(rows, frames, strict=True):
            symbol = self._symbols[row.symbol]
            if symbol.ids.add(row.trade_id):
                new.append(row)
                new_frames.append(frame)
                if row.trade_id == symbol.ids.last:
                    symbol.time = row.timestamp
                elif symbol.ids.ends_a_hole(row.trade_id):
                    symbol.behind[row.trade_id] = row.timestamp
                if frame.connection:
                    symbol.heard = now
                    if symbol.ids.whole:
                        symbol.interrupted = None
        return new, new_frames

    def ready(self, symbols: Sequence[str]) -> Iterator[Look]:
        """Their stream is connected: see what was missed meanwhile."""
        for name in symbols:
            symbol = self._symbols[name]
            if symbol.missed and symbol.ids.last is not None and not symbol.looking:
                symbol.looking = True
                yield Look(name)

    def interrupted(self, symbols: Sequence[str], cause: str) -> None:
        """Their stream was cut."""
        for name in symbols:
            self._symbols[name].interrupted = cause
            self._symbols[name].missed = True

    def questions(self, now: float) -> Iterator[Job | Look]:
        """What is to be asked of the venue's history now."""
        for name, symbol in self._symbols.items():
            if symbol.job is None and (job := self._job(name, symbol, now)):
                yield job
            if (
                not symbol.looking
                and symbol.ids.last is not None
                and now - symbol.heard > self._stale
            ):
                # Quiet, or cut without a word: only the venue knows.
                symbol.looking, symbol.heard = True, now
                yield Look(name)

    def _job(self, name: str, symbol: _Symbol, now: float) -> Job | None:
        if symbol.ids.whole or symbol.ids.last is None:
            symbol.ask_at = None
            symbol.doubted = False
            symbol.behind.clear()
            return None
        if symbol.ask_at is None:
            symbol.cause = symbol.interrupted or "unknown"
            # Nothing that a cut connection missed is on its way.
            symbol.ask_at = now if symbol.interrupted else now + GRACE
            symbol.interrupted = None
        if now < symbol.ask_at:
            return None
        if symbol.doubted:
            symbol.doubted = False
            self._cut.append(name)
        hole = symbol.ids.holes()[0]
        last = min(hole.last, hole.first + MOST_A_JOB - 1)
        symbol.job = Job(name, hole.first, last, symbol.time)
        return symbol.job

    def done(self, done: Done, now: float) -> list[Gap]:
        """A job has ended; what is given up of it."""
        symbol = self._symbols[done.job.symbol]
        symbol.job = None
        symbol.ask_at = now
        first, last = done.job.first, done.job.last
        missing = [h for h in symbol.ids.holes() if h.first <= last and h.last >= first]
        if not missing:
            symbol.asked.clear()
            return []
        start = missing[0].first
        symbol.asked[start] = symbol.asked.get(start, 0) + 1
        if symbol.asked[start] < MOST_ASKED:
            symbol.ask_at = now + AGAIN
            return []
        symbol.asked.clear()
        before = symbol.time or None
        gone = symbol.ids.give_up(first, last)
        return [self._gap(done.job.symbol, symbol, hole, before) for hole in gone]

    def _gap(self, name: str, symbol: _Symbol, hole: Hole, before: int | None) -> Gap:
        after = symbol.behind.get(hole.last + 1)
        return Gap(name, "trades", hole.first, hole.last, before, after, symbol.cause)

    def newest(self, found: Newest) -> None:
        """Learn which trade is the newest: those up to it that did not come are missing."""
        symbol = self._symbols[found.symbol]
        symbol.looking = False
        if found.trade_id is None:
            return
        symbol.doubted = found.trade_id > symbol.ids.highest and not symbol.missed
        symbol.missed = False
        symbol.ids.expect(found.trade_id)

    def cut(self) -> list[str]:
        """Symbols whose stream, connected as it is, no longer brings their trades; told once."""
        found, self._cut = self._cut, []
        return found

    def expect(self, last: int) -> None:
        """Learn that each symbol has trades up to the id `last`."""
        for symbol in self._symbols.values():
            symbol.ids.expect(last)

    def position(self) -> dict[str, Had]:
        """Per symbol, which trades were had."""
        return {
            name: Had(symbol.ids.last, symbol.time, symbol.ids.beyond)
            for name, symbol in self._symbols.items()
            if symbol.ids.last is not None
        }

    def open_holes(self) -> int:
        """How many holes there are."""
        return sum(len(symbol.ids.holes()) for symbol in self._symbols.values())

    @property
    def is_asking(self) -> bool:
        """Whether a question about a hole is not answered to its end."""
        return any(symbol.job is not None for symbol in self._symbols.values())
