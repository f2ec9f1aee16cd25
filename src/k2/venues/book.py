"""A book of 1,000 levels a side that follows a market's quotes, change by change."""

from collections.abc import Mapping
from typing import Final, NamedTuple

from k2.venues.events import Quote

LEVELS: Final = 1_000
"""Levels of each side; the deepest book that a venue here gives."""

Levels = list[tuple[int, int]]
"""Prices and quantities in 1e-8, best first; in changes a quantity of 0 removes a level."""


class Snapshot(NamedTuple):
    """A book at one moment: the update that made it, its time, and both sides best first."""

    update: int
    time: int
    bids: Levels
    asks: Levels


class Side:
    """One side: a level at each tick from the best price on, away from the other side.

    `away` is the signed step from one level to the next worse one.
    """

    def __init__(self, away: int, lot: int) -> None:
        self.away = away
        self.best = 0
        self.before = 0
        """The best price before the last change."""
        self.changes: Mapping[int, int] = {}
        """What the last change did: quantities by price, 0 for a level that is gone."""
        self._lot = lot
        self._levels: dict[int, int] = {}

    def move(self, best: int, quantity: int) -> None:
        """Put the best price there with that quantity; the levels behind it follow."""
        old, away, levels = self.best, self.away, self._levels
        changes: dict[int, int] = {}
        steps = (best - old) // away
        if not levels or abs(steps) >= LEVELS:
            changes.update(dict.fromkeys(levels, 0))
            levels.clear()
            came, gone = range(best, best + LEVELS * away, away), range(0)
        elif steps > 0:
            gone = range(old, best, away)
            came = range(old + LEVELS * away, best + LEVELS * away, away)
        else:
            gone = range(best + LEVELS * away, old + LEVELS * away, away)
            came = range(best, old, away)
        for price in gone:
            del levels[price]
            changes[price] = 0
        for price in came:
            levels[price] = changes[price] = self._resting(price)
        levels[best] = changes[best] = quantity
        self.before, self.best, self.changes = old, best, changes

    def top(self, depth: int) -> Levels:
        """The best levels, at most `depth`."""
        if not self._levels:
            return []
        end = self.best + min(depth, LEVELS) * self.away
        return [(price, self._levels[price]) for price in range(self.best, end, self.away)]

    def changes_within(self, depth: int) -> Levels:
        """The last change as one sees it who keeps the best `depth` levels and forgets the others.

        A level pushed out by better ones is not told; one that moves up into the range is.
        """
        end = self.best + depth * self.away
        inside = {p: q for p, q in self.changes.items() if (end - p) * self.away > 0}
        first = self.before + depth * self.away
        if self.before and (end - first) * self.away > 0:
            for price in range(max(first, self.best, key=self._rank), end, self.away):
                if price in self._levels:
                    inside.setdefault(price, self._levels[price])
        return list(inside.items())

    def _rank(self, price: int) -> int:
        return price if self.away > 0 else -price

    def _resting(self, price: int) -> int:
        # What rests at a price hangs on the price alone, so that a book needs no randomness.
        return self._lot * (1 + price // abs(self.away) * 2_654_435_761 % 4_999)


class Book:
    """Both sides of one symbol's book."""

    def __init__(self, tick: int, lot: int) -> None:
        self.update = 0
        self.time = 0
        self.bids = Side(-tick, lot)
        self.asks = Side(tick, lot)

    def apply(self, quote: Quote) -> None:
        """Follow a quote: it becomes the best level of each side."""
        self.update, self.time = quote.number, quote.time
        self.bids.move(quote.bid, quote.bid_quantity)
        self.asks.move(quote.ask, quote.ask_quantity)

    def snapshot(self, depth: int) -> Snapshot:
        """The best `depth` levels of each side."""
        return Snapshot(self.update, self.time, self.bids.top(depth), self.asks.top(depth))
