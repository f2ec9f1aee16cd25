"""Trades of a range of ids from a venue's history, as a feed that ends."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from random import Random
from typing import Final

from k2.feeds.live.batch import Batch
from k2.feeds.live.columns import Origin
from k2.feeds.live.connection import to_micros
from k2.feeds.live.history import Done, History, Page
from k2.feeds.live.options import Asked
from k2.feeds.live.position import Had, Position, from_json
from k2.feeds.live.trades import Trades
from k2.feeds.live.venue import Venue
from k2.feeds.port import EndOfFeed, Records
from k2.model import Exchange

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
        first, last = asked.ids
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
        now = time.monotonic()
        batch = Batch()
        for question in self._trades.questions(now):
            self._history.ask(question)
        found = self._history.take(_WAIT_SECONDS)
        if isinstance(found, Page):
            batch.trades, batch.trade_frames = self._trades.take(
                found.parsed.trades, found.parsed.trade_frames, now
            )
            batch.rejects += found.parsed.rejects
        elif isinstance(found, Done):
            batch.gaps += self._trades.done(found, now)
        elif self._trades.open_holes() == 0:
            raise EndOfFeed
        return batch.records(self._origin, to_micros(self._clock()))

    def position(self) -> str:
        """Per symbol, the last trade before the first that is missing."""
        return Position(self._trades.position()).to_json()

    def close(self) -> None:
        """End the requests."""
        self._history.close()
