"""Where a live feed stands, as text: the last trade before the first hole, and the last quotes.

`{"quotes":{"BTCUSDT":TIME},"trades":{"BTCUSDT":[ID,TIME]}}`, times in nanoseconds UTC. While there
are holes, ranges of ids that were had behind them follow: `[ID,TIME,[FIRST,LAST],…]`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from k2.errors import BadInput
from k2.feeds.live.venue import UNREADABLE, whole


@dataclass(frozen=True)
class Had:
    """The trades that were had of a symbol: all up to `last`, which was at `time`, and `beyond`."""

    last: int
    time: int
    beyond: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Position:
    """Per symbol: which trades were had, and the time of the last quote."""

    trades: Mapping[str, Had] = field(default_factory=dict)
    quotes: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> str:
        """As text, the same for the same position."""
        found: dict[str, object] = {}
        if self.trades:
            found["trades"] = {
                name: [had.last, had.time, *had.beyond] for name, had in self.trades.items()
            }
        if self.quotes:
            found["quotes"] = self.quotes
        return orjson.dumps(found, option=orjson.OPT_SORT_KEYS).decode()


def from_json(text: str | None) -> Position:
    """What `to_json` wrote; None is the start. Raises `BadInput`."""
    if text is None:
        return Position()
    try:
        found = orjson.loads(text)
        trades = {name: _had(*had) for name, had in found.get("trades", {}).items()}
        quotes = {name: whole(time, "time") for name, time in found.get("quotes", {}).items()}
    except UNREADABLE as error:
        raise BadInput(
            "this is no position in a live feed",
            found=text[:200],
            expected='what the feed gave, such as {"trades":{"BTCUSDT":[5100000001,0]}}',
        ) from error
    return Position(trades, quotes)


def _had(last: object, time: object, *beyond: tuple[object, object]) -> Had:
    ranges, before = [], whole(last, "id")
    for low, high in beyond:
        first, end = whole(low, "id"), whole(high, "id")
        if not before + 1 < first <= end:
            raise ValueError(f"the range {first} to {end} does not follow {before}")
        ranges.append((first, end))
        before = end
    return Had(whole(last, "id"), whole(time, "time"), tuple(ranges))
