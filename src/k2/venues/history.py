"""The past trades of one symbol, as many as memory may take, with those that are lost marked."""

from array import array
from bisect import bisect_left, bisect_right

from k2.venues.events import Trade


class History:
    """Trades by their consecutive numbers. It keeps at least `keep` and drops older ones.

    `first` is the number of the oldest trade still kept, `end` that of the next to come.
    """

    def __init__(self, symbol: int, first: int, keep: int) -> None:
        self.first = self.end = first
        self._symbol = symbol
        self._keep = keep
        self._lost: set[int] = set()
        self._times, self._prices, self._quantities = array("q"), array("q"), array("q")
        self._buys = array("b")

    def append(self, trade: Trade, *, lost: bool = False) -> None:
        """Keep the trade that `end` numbers; nobody gets a `lost` one again."""
        if lost:
            self._lost.add(trade.number)
        columns = (self._times, self._prices, self._quantities)
        for column, value in zip(columns, trade[2:5], strict=True):
            column.append(value)
        self._buys.append(trade.is_buy)
        self.end += 1
        # By half of it at a time: each drop moves all that stays.
        if len(self._times) > self._keep * 3 // 2:
            gone = len(self._times) - self._keep
            for each in (*columns, self._buys):
                del each[:gone]
            self.first += gone
            self._lost = {number for number in self._lost if number >= self.first}

    def is_lost(self, first: int, last: int) -> bool:
        """Whether any of the trades `first` to `last` (inclusive) is lost."""
        return bool(self._lost) and any(n in self._lost for n in range(first, last + 1))

    def between(self, first: int, end: int) -> list[Trade]:
        """The trades `first` to `end` (exclusive) that are kept and not lost, ascending."""
        numbers = range(max(first, self.first), min(end, self.end))
        return [self._trade(number) for number in numbers if number not in self._lost]

    def from_number(self, first: int, limit: int) -> list[Trade]:
        """At most `limit` trades from number `first` on, ascending."""
        found: list[Trade] = []
        while len(found) < limit and first < self.end:
            stop = max(first, self.first) + limit - len(found)
            found += self.between(first, stop)
            first = stop
        return found

    def last(self, limit: int, before: int | None = None) -> list[Trade]:
        """The last `limit` trades with numbers below `before`, ascending."""
        end = self.end if before is None else min(before, self.end)
        found: list[Trade] = []
        while len(found) < limit and end > self.first:
            start = end - (limit - len(found))
            found = self.between(start, end) + found
            end = start
        return found

    def number_at(self, time: int) -> int:
        """The number of the first trade at or after `time` (microseconds)."""
        return self.first + bisect_left(self._times, time)

    def number_after(self, time: int) -> int:
        """The number of the first trade after `time` (microseconds)."""
        return self.first + bisect_right(self._times, time)

    def _trade(self, number: int) -> Trade:
        row = number - self.first
        return Trade(
            self._symbol,
            number,
            self._times[row],
            self._prices[row],
            self._quantities[row],
            bool(self._buys[row]),
        )
