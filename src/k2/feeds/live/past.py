"""Trades of ranges of ids from a venue's history: as a feed that ends, or range by range."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from random import Random
from typing import Final
from urllib.parse import quote

from k2.errors import Unavailable
from k2.feeds.live.batch import Batch
from k2.feeds.live.columns import Origin
from k2.feeds.live.connection import to_micros
from k2.feeds.live.history import Done, History, Page
from k2.feeds.live.options import Asked, parse
from k2.feeds.live.position import Had, Position, from_json
from k2.feeds.live.trades import Trades
from k2.feeds.live.venue import Parsed, Venue
from k2.feeds.port import EndOfFeed, Records
from k2.model import Exchange

PATIENCE: Final = 60.0
"""Seconds that a venue which gives no answer at all is waited for."""

_WAIT_SECONDS: Final = 0.05


class PastFeed:
    """The trades `ids` (inclusive) of each symbol, ascending; what the venue has not are gaps."""

    def __init__(
        self,
        name: str,
        venue: Venue,
        asked: Asked,
        position: str | None,
        clock: Callable[[], datetime],
    ) -> None:
        assert asked.ids is not None
        self._ids = first, last = asked.ids
        self.name = f"{name}:{first}-{last}"
        self.exchanges: Sequence[Exchange] = (venue.exchange,)
        start = dict.fromkeys(asked.symbols, Had(first - 1, asked.since))
        self._trades = Trades(
            asked.symbols, {**start, **from_json(position).trades}, stale=float("inf")
        )
        self._trades.interrupted(asked.symbols, "unknown")
        self._trades.expect(last)
        self._clock = clock
        self._origin = Origin(venue.exchange.name, venue.exchange.name)
        self._history = History(venue, clock, Random())

    def read(self) -> Sequence[Records]:
        """The next page. Raises `EndOfFeed` once all ids were had or given up."""
        records = _next(self._trades, self._history, self._ids, self._origin, self._clock)
        if records is None:
            raise EndOfFeed
        return records

    def position(self) -> str:
        """Per symbol, the last trade before the first that is missing."""
        return Position(self._trades.position()).to_json()

    def close(self) -> None:
        """End the requests."""
        self._history.close()


@dataclass(frozen=True)
class Range:
    """Trades `first` to `last` (inclusive) of a symbol. `after`: when the one before them was, in
    nanoseconds UTC, 0 if that is not known. `cause`: why they were missed.
    """

    symbol: str
    first: int
    last: int
    after: int
    cause: str


def venue_of(name: str, symbols: Sequence[str], rest: str | None) -> Venue | None:
    """The venue whose feed is called `name`, for trades of these symbols; None where there is no
    such feed, or none that has a past. `rest`: where its REST interface is, if not its own place.

    Raises `BadInput` for a `rest` that is no address.
    """
    if not name.isidentifier() or find_spec(f"k2.feeds.{name}") is None:
        return None
    opener: Callable[[Asked], Venue] | None
    opener = getattr(import_module(f"k2.feeds.{name}"), "VENUE", None)
    if opener is None:
        return None
    options = "kinds=trades" + (f"&rest={quote(rest, safe='')}" if rest else "")
    return opener(parse(name, f"{','.join(symbols)}?{options}", ".+"))


def refill(
    venue: Venue,
    ranges: Sequence[Range],
    clock: Callable[[], datetime],
    stop: Callable[[], bool],
) -> Iterator[tuple[Range, Sequence[Records]]]:
    """Ask the venue for the ranges, one after the other at its pace, until `stop()`.

    Yields trades of each range as they come, and `gaps` for what the venue does not have either;
    nothing, now and then, while it is waited for. Raises `Unavailable` for a venue that gives no
    answer for `PATIENCE` seconds.
    """
    origin = Origin(venue.exchange.name, venue.exchange.name)
    history = History(venue, clock, Random())
    try:
        for wanted in ranges:
            start = {wanted.symbol: Had(wanted.first - 1, wanted.after)}
            trades = Trades([wanted.symbol], start, stale=float("inf"))
            trades.interrupted([wanted.symbol], wanted.cause)
            trades.expect(wanted.last)
            while not stop():
                away = history.away_since
                if away is not None and time.monotonic() - away > PATIENCE:
                    raise Unavailable(
                        f"the venue gives no answer for {PATIENCE:.0f} s",
                        place=venue.rest,
                        hint="--rest names another address; run it again later, nothing is doubled",
                    )
                records = _next(trades, history, (wanted.first, wanted.last), origin, clock)
                if records is None:
                    break
                yield wanted, records
    finally:
        history.close()


def _next(
    trades: Trades,
    history: History,
    ids: tuple[int, int],
    origin: Origin,
    clock: Callable[[], datetime],
) -> Sequence[Records] | None:
    """What the history brought of these ids (inclusive), within a moment; None once nothing is
    missing, and no more answers are to come.
    """
    now = time.monotonic()
    batch = Batch()
    for question in trades.questions(now):
        history.ask(question)
    found = history.take(_WAIT_SECONDS)
    if isinstance(found, Page):
        parsed = _within(found.parsed, *ids)
        batch.trades, batch.trade_frames = trades.take(parsed.trades, parsed.trade_frames, now)
        batch.rejects += parsed.rejects
    elif isinstance(found, Done):
        batch.gaps += trades.done(found, now)
    elif trades.open_holes() == 0 and not trades.is_asking:
        return None
    return batch.records(origin, to_micros(clock()))


def _within(parsed: Parsed, first: int, last: int) -> Parsed:
    """The trades with these ids, and whatever could not be read: others may come along."""
    chosen = [
        (trade, frame)
        for trade, frame in zip(parsed.trades, parsed.trade_frames, strict=True)
        if first <= trade.trade_id <= last
    ]
    trades, frames = [trade for trade, _ in chosen], [frame for _, frame in chosen]
    return Parsed(trades=trades, trade_frames=frames, rejects=parsed.rejects)
