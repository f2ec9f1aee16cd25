"""A live venue as a feed: reads what its connections and its history bring, and never hangs up.

A connection that ends is opened again by itself. Trades that were missed are filled from the
venue's history while live ones go on; what cannot be filled becomes a record of kind `gaps`, what
cannot be read one of kind `rejects`. The position is, per symbol, the last trade before the first
hole and the time of the last quote.
"""

import itertools
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import Final

from k2.feeds.live.batch import Batch
from k2.feeds.live.columns import Origin
from k2.feeds.live.connection import (
    MOST_WAITING,
    Connection,
    Ended,
    Event,
    Inbox,
    Ready,
    to_micros,
)
from k2.feeds.live.history import Done, History, Page
from k2.feeds.live.link import Link
from k2.feeds.live.options import Asked, parse
from k2.feeds.live.past import PastFeed
from k2.feeds.live.position import Position, from_json
from k2.feeds.live.quotes import Quotes
from k2.feeds.live.skew import Skew
from k2.feeds.live.trades import Trades
from k2.feeds.live.venue import (
    LEAVING,
    LOST,
    MAINTENANCE,
    ONLINE,
    Frame,
    Notice,
    Parsed,
    Parser,
    Plan,
    Venue,
    parse_frames,
)
from k2.feeds.port import Feed, Records
from k2.model import Exchange

MOST_FRAMES: Final = 1_000
"""So many frames one `read` takes: what is read of them stays well under 100 ms."""

_WAIT_SECONDS: Final = 0.03
_POLL_SECONDS: Final = 0.02
"""So often connections and holes are looked after."""


def open_live(
    name: str,
    rest: str,
    symbol: str,
    venue: Callable[[Asked], Venue],
    position: str | None,
    clock: Callable[[], datetime],
) -> Feed:
    """The feed `name:rest` of a venue; `symbol` is the pattern that its symbols match."""
    asked = parse(name, rest, symbol)
    symbols = ",".join(sorted(asked.symbols))
    opened = venue(asked)
    if asked.ids is not None:
        return PastFeed(f"{name}-history:{symbols}", opened, asked, position, clock)
    return LiveFeed(f"{name}:{symbols}", opened, asked, position, clock)


@dataclass(frozen=True)
class Health:
    """How a live feed fares: `links` of them `connected`, what was counted since it was opened,
    holes that are open, and how far the clock is ahead of the venue's (None: not known).
    """

    links: int
    connected: int
    reconnects: int
    rejects: int
    gaps: int
    open_holes: int
    skew_seconds: float | None


class LiveFeed:
    """A feed of one venue that never ends. One thread reads it; connections have their own."""

    def __init__(
        self,
        name: str,
        venue: Venue,
        asked: Asked,
        position: str | None,
        clock: Callable[[], datetime],
        random: Random | None = None,
    ) -> None:
        start = from_json(position)
        self.name = name
        self.exchanges: Sequence[Exchange] = (venue.exchange,)
        self.rest = venue.rest
        """Where the venue's REST interface is."""
        self.sockets: Sequence[str] = [plan.url for plan in venue.plans()]
        """Where its connections lead."""
        self._venue = venue
        self._asked = asked
        self._symbols = frozenset(asked.symbols)
        self._clock = clock
        self._origin = Origin(venue.exchange.name, venue.exchange.name)
        self._trades = Trades(asked.symbols, start.trades, asked.stale)
        self._quotes = Quotes(asked.symbols, start.quotes, venue.quotes_are_numbered)
        self._inbox: Inbox = queue.Queue(MOST_WAITING)
        self._numbers = itertools.count(1)
        self._parsers: dict[int, Parser] = {}
        self._link_of: dict[int, Link] = {}
        self._cause: dict[Link, str] = {}
        self._skew = Skew()
        self._reconnects = self._rejects = self._gaps = 0
        self._next_poll = 0.0
        drawn = random or Random()
        self._history = History(venue, clock, drawn)
        lifetime = venue.limits.lifetime
        self._links = [Link(plan, lifetime, self._connect, drawn) for plan in venue.plans()]

    def read(self) -> Sequence[Records]:
        """What came since the last call, or within 30 ms."""
        now = time.monotonic()
        self._look_after(now)
        batch = Batch()
        frames: list[Frame] = []
        for event in self._events():
            if isinstance(event, Frame) and (
                not frames or frames[-1].connection == event.connection
            ):
                frames.append(event)
                continue
            # What came before belongs before what this changes.
            self._take(frames, batch, now)
            frames = []
            if isinstance(event, Frame):
                frames.append(event)
            else:
                self._happened(event, now)
        self._take(frames, batch, now)
        self._take_history(batch, now)
        records = batch.records(self._origin, to_micros(self._clock()))
        for each in records:
            self._rejects += each.table.num_rows if each.kind == "rejects" else 0
        self._gaps += len(batch.gaps)
        return records

    def position(self) -> str:
        """Just after the last record: see `k2.feeds.live.position`."""
        return Position(self._trades.position(), self._quotes.position()).to_json()

    def health(self) -> Health:
        """How it fares now. May be asked from any thread."""
        return Health(
            len(self._links),
            sum(link.connected for link in self._links),
            self._reconnects,
            self._rejects,
            self._gaps,
            self._trades.open_holes(),
            self._skew.seconds(),
        )

    def close(self) -> None:
        """End all connections."""
        connections = [each for link in self._links for each in link.close()]
        self._history.close()
        for connection in connections:
            connection.join()

    def _connect(self, plan: Plan) -> Connection:
        number = next(self._numbers)
        self._parsers[number] = self._venue.parser(plan.symbols)
        self._link_of[number] = next(link for link in self._links if link.plan is plan)
        return Connection(
            number, plan, self._venue.limits, self._venue.answers, self._clock, self._inbox
        )

    def _look_after(self, now: float) -> None:
        if now < self._next_poll:
            return
        self._next_poll = now + _POLL_SECONDS
        for link in self._links:
            link.poll(now)
        if "trades" in self._asked.kinds:
            for question in self._trades.questions(now):
                self._history.ask(question)
            for symbol in self._trades.cut():
                link = next(link for link in self._links if symbol in link.plan.symbols)
                link.replace(f"the trades of {symbol} have stopped coming")

    def _events(self) -> list[Event]:
        """All that came, in order; waits a moment for the first."""
        found: list[Event] = []
        try:
            found.append(self._inbox.get(timeout=_WAIT_SECONDS))
            while len(found) < MOST_FRAMES:
                found.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        return found

    def _happened(self, event: Ready | Ended, now: float) -> None:
        link = self._link_of[event.number]
        symbols = link.plan.symbols
        if isinstance(event, Ready):
            link.ready(event.number, now)
            self._cause.pop(link, None)
            for question in self._trades.ready(symbols):
                self._history.ask(question)
            return
        del self._parsers[event.number], self._link_of[event.number]
        if link.ended(event, now):
            self._reconnects += 1
            cause = self._cause.get(link, "disconnect")
            self._trades.interrupted(symbols, cause)
            self._quotes.interrupted(symbols, cause)

    def _take(self, frames: Sequence[Frame], batch: Batch, now: float) -> None:
        """Read frames of one connection, and take what is news."""
        if not frames:
            return
        parsed = Parsed(self._symbols)
        parse_frames(self._parsers[frames[0].connection], frames, parsed)
        self._add(parsed, batch, now)
        link = self._link_of[frames[0].connection]
        for notice in parsed.notices:
            self._noticed(notice, link)

    def _take_history(self, batch: Batch, now: float) -> None:
        while (found := self._history.take()) is not None:
            if isinstance(found, Page):
                self._add(found.parsed, batch, now)
            elif isinstance(found, Done):
                batch.gaps += self._trades.done(found, now)
            else:
                self._trades.newest(found)

    def _add(self, parsed: Parsed, batch: Batch, now: float) -> None:
        trades, frames = self._trades.take(parsed.trades, parsed.trade_frames, now)
        batch.trades += trades
        batch.trade_frames += frames
        primaries = {link.primary for link in self._links}
        quotes, frames, gaps = self._quotes.take(parsed.quotes, parsed.quote_frames, primaries)
        batch.quotes += quotes
        batch.quote_frames += frames
        batch.gaps += gaps
        batch.rejects += parsed.rejects
        self._skew.add(parsed.delays, self._venue.exchange.name)

    def _noticed(self, notice: Notice, link: Link) -> None:
        if notice.what == ONLINE:
            self._cause.pop(link, None)
        elif notice.what in (MAINTENANCE, LEAVING):
            self._cause[link] = "maintenance"
        else:
            symbols = link.plan.symbols if notice.symbol is None else (notice.symbol,)
            if notice.connection == link.primary:
                self._quotes.interrupted(symbols, "unknown")
        if notice.what in (LEAVING, LOST) and notice.connection == link.primary:
            link.replace(notice.reason)
