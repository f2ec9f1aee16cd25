"""A venue's trading floor: what the simulated market does, when it does it, and what is kept.

Comes in: a seed, symbols and the time. Goes out: each trade and quote as it becomes due, after
books and histories took it in. It goes on whether or not anybody listens.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from k2.feeds.market import BLOCK, Market, Parameters
from k2.venues.book import LEVELS, Book, Snapshot
from k2.venues.events import Event, Quote, Symbol, Trade
from k2.venues.history import History
from k2.venues.text import SCALE, digits_of

_COPY_EVERY: Final = 500_000
"""Microseconds between the copies of a book that serve when a snapshot has to be old."""
_COPIES: Final = 4


@dataclass(frozen=True)
class Trading:
    """What is traded and how: equal values make equal markets, but for their times.

    `rate` counts the market's records a second, trades and quotes, over all symbols. `history`
    is how many past trades of each symbol are kept at least. `start` is when the market began,
    in microseconds since 1970 (None: when it opens): one that lies back has a past already.
    After `seconds` of it nothing more happens (None: it goes on).
    """

    symbols: Sequence[str]
    rate: int = 500
    seed: int = 7
    history: int = 1_000_000
    start: int | None = None
    seconds: float | None = None


class Day:
    """What tickers tell of a symbol since the market began, in 1e-8."""

    def __init__(self) -> None:
        self.first = self.last = self.last_quantity = self.low = self.high = 0
        self.volume = 0
        self._notional = 0

    def add(self, trade: Trade) -> None:
        """Take a trade in."""
        if not self.first:
            self.first = self.low = self.high = trade.price
        self.last, self.last_quantity = trade.price, trade.quantity
        self.low, self.high = min(self.low, trade.price), max(self.high, trade.price)
        self.volume += trade.quantity
        self._notional += trade.price * trade.quantity

    @property
    def vwap(self) -> int:
        """Volume-weighted average price, cut to 1e-8."""
        return self._notional // self.volume if self.volume else 0

    @property
    def change_percent(self) -> int:
        """By how much the price changed, in 1e-8 of a percent."""
        return (self.last - self.first) * 100 * SCALE // self.first if self.first else 0


class Floor:
    """The market of one venue. `first_trade` and `first_update` are the ids that all symbols
    begin after; both are multiples of 4.

    One of three market orders fills in two trades: a market order numbered s (from 1) makes the
    trades that `trades_of` says.
    """

    def __init__(
        self, trading: Trading, now: int, *, first_trade: int = 0, first_update: int = 0
    ) -> None:
        names = trading.symbols
        self._market = Market(Parameters(seed=trading.seed, symbols=len(names), pace=trading.rate))
        self._lots: list[int] = self._market.lots.tolist()
        ticks: list[int] = self._market.ticks.tolist()
        steps = [
            (digits_of(tick), digits_of(lot)) for tick, lot in zip(ticks, self._lots, strict=True)
        ]
        self.symbols = [Symbol(n, name, *steps[n]) for n, name in enumerate(names)]
        self.index = {name: n for n, name in enumerate(names)}
        self.books = [Book(tick, lot) for tick, lot in zip(ticks, self._lots, strict=True)]
        self.days = [Day() for _ in names]
        self.histories = [History(n, first_trade + 1, trading.history) for n in range(len(names))]
        self.clock_off = 0
        """Microseconds by which the venue's clock is ahead of the true time."""
        self.stale_snapshots = 0
        """How many of the next snapshots of books are older than the stream."""
        self.trading = True
        """Turned off, the market stands still; it goes on where it stood."""
        self._first_trade, self._first_update = first_trade, first_update
        self._start = now if trading.start is None else trading.start
        self._end = None if trading.seconds is None else int(trading.seconds * 1_000_000)
        self._next = 0
        self._block: tuple[int, list[tuple[int, ...]]] | None = None
        self._to_lose: dict[int | None, int] = {}
        self._last_times = [0] * len(names)
        self._copies: deque[list[Snapshot]] = deque(maxlen=_COPIES)
        self._copied = 0

    def now(self, now: int) -> int:
        """The time by the venue's clock."""
        return now + self.clock_off

    def advance(self, now: int) -> Iterator[tuple[Event, bool]]:
        """The events due by `now`, in order, each after books and histories took it in.

        The boolean says that the event is lost: kept by nobody, to be sent to nobody.
        """
        if now - self._copied > _COPY_EVERY:
            self._copies.append([book.snapshot(LEVELS) for book in self.books])
            self._copied = now
        if not self.trading:
            # What is not traded now is not traded later all at once either.
            self._start = now - self._records()[self._next % BLOCK][2]
            return
        while True:
            record = self._records()[self._next % BLOCK]
            if self._start + record[2] > now or (self._end is not None and record[2] >= self._end):
                return
            self._next += 1
            yield from self._happen(record)

    def lose(self, symbol: int | None, orders: int) -> None:
        """Have the next market orders of a symbol (None: of any) be lost for good."""
        self._to_lose[symbol] = self._to_lose.get(symbol, 0) + orders

    def snapshot(self, symbol: int, depth: int) -> Snapshot:
        """A symbol's book; an older one while `stale_snapshots` says so."""
        if self.stale_snapshots and self._copies:
            self.stale_snapshots -= 1
            update, time, bids, asks = self._copies[0][symbol]
            return Snapshot(update, time, bids[:depth], asks[:depth])
        return self.books[symbol].snapshot(depth)

    def _happen(self, record: tuple[int, ...]) -> Iterator[tuple[Event, bool]]:
        is_quote, symbol, after, order, is_buy, price, other, quantity, opposite = record
        time = self._start + after + self.clock_off
        if is_quote:
            number = self._first_update + order
            quote = Quote(symbol, number, time, price, quantity, other, opposite)
            self.books[symbol].apply(quote)
            yield quote, False
            return
        lost = self._loses(symbol)
        for number in trades_of(order):
            # Times of a symbol's trades ascend strictly, as a cursor of times (Kraken's) needs.
            time = self._last_times[symbol] = max(time, self._last_times[symbol] + 1)
            trade = Trade(symbol, self._first_trade + number, time, price, quantity, bool(is_buy))
            self.histories[symbol].append(trade, lost=lost)
            self.days[symbol].add(trade)
            yield trade, lost
            quantity = self._lots[symbol] * (1 + order % 7)

    def _loses(self, symbol: int) -> bool:
        for key in (symbol, None):
            if self._to_lose.get(key):
                self._to_lose[key] -= 1
                return True
        return False

    def _records(self) -> list[tuple[int, ...]]:
        number = self._next // BLOCK
        if self._block is None or self._block[0] != number:
            block = self._market.block(number)
            columns = (
                *(block.is_quote, block.symbols, block.times, block.sequences, block.is_buy),
                *(*block.prices, *block.quantities),
            )
            rows = zip(*(column.tolist() for column in columns), strict=True)
            self._block = number, list(rows)
        return self._block[1]


def trades_of(order: int) -> range:
    """The trades, counted from 1, that the market order counted from 1 fills in."""
    whole, rest = divmod(order - 1, 3)
    first = 4 * whole + (1, 3, 4)[rest]
    return range(first, first + (2 if rest == 0 else 1))


def order_of(trade: int) -> int:
    """The market order, counted from 1, that a trade (counted from 1) is a fill of."""
    whole, rest = divmod(trade - 1, 4)
    return 3 * whole + (1, 1, 2, 3)[rest]
