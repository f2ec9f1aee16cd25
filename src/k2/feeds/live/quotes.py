"""The quotes of one feed, by symbol: which count, and when there were none.

Quotes cannot be asked for again: a hole in them is known by its times, and stays.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from k2.feeds.live.columns import Gap
from k2.feeds.live.venue import FEED_DOWN, Frame, Quote

MOST_SEEN: Final = 2_000
"""So many numbers of a symbol's quotes are remembered, to know those that come twice."""


@dataclass
class _Symbol:
    time: int
    """Time of the last quote, nanoseconds UTC; 0: there was none yet."""
    interrupted: str | None
    seen: dict[int, None] = field(default_factory=dict)
    """Numbers of its last quotes, in the order they came."""
    forgotten: int = -1
    """The highest number that is remembered no more: what comes up to it, came before."""

    def is_new(self, number: int) -> bool:
        """Take a number; False if it was had. One that is only out of order is new."""
        if number <= self.forgotten or number in self.seen:
            return False
        self.seen[number] = None
        if len(self.seen) > MOST_SEEN:
            oldest = next(iter(self.seen))
            del self.seen[oldest]
            self.forgotten = max(self.forgotten, oldest)
        return True


class Quotes:
    """All symbols' quotes. `numbered`: they have the same sequence on whichever connection."""

    def __init__(self, symbols: Sequence[str], position: Mapping[str, int], numbered: bool) -> None:
        self._numbered = numbered
        self._symbols = {
            name: _Symbol(position.get(name, 0), FEED_DOWN if name in position else None)
            for name in symbols
        }

    def take(
        self, rows: Sequence[Quote], frames: Sequence[Frame], primaries: Container[int | None]
    ) -> tuple[list[Quote], list[Frame], list[Gap]]:
        """Quotes that are news, and the holes that they end.

        Where quotes are not numbered, only those of connections in `primaries` count.
        """
        new: list[Quote] = []
        new_frames: list[Frame] = []
        gaps: list[Gap] = []
        for row, frame in zip(rows, frames, strict=True):
            symbol = self._symbols[row.symbol]
            if self._numbered:
                assert row.sequence is not None
                if not symbol.is_new(row.sequence):
                    continue
            elif frame.connection not in primaries:
                continue
            if symbol.interrupted is not None:
                if symbol.time:
                    gap = Gap(
                        *(row.symbol, "quotes", None, None),
                        *(symbol.time, row.timestamp, symbol.interrupted),
                    )
                    gaps.append(gap)
                symbol.interrupted = None
            symbol.time = row.timestamp
            new.append(row)
            new_frames.append(frame)
        return new, new_frames, gaps

    def interrupted(self, symbols: Sequence[str], cause: str) -> None:
        """Quotes of these symbols may be missing from the last one on."""
        for name in symbols:
            symbol = self._symbols[name]
            if symbol.interrupted is None:
                symbol.interrupted = cause

    def position(self) -> dict[str, int]:
        """Time of each symbol's last quote."""
        return {name: symbol.time for name, symbol in self._symbols.items() if symbol.time}
