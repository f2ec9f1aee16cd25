"""The questions of the comparison, told without any engine's words, and the columns of answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Final, TypeAlias

from bench.market import DAYS, SYMBOLS
from k2.lake import definition

MINUTE_US: Final = 60_000_000
DAY_US: Final = 1440 * MINUTE_US

COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    "trades": (
        "symbol",
        "exchange",
        "timestamp",
        "price",
        "quantity",
        "trade_id",
        "side",
        "source_sequence",
    ),
    "quotes": (
        "symbol",
        "exchange",
        "timestamp",
        "bid_price",
        "bid_quantity",
        "ask_price",
        "ask_quantity",
        "source_sequence",
    ),
}
"""The columns of a kind that every engine holds."""

BAR: Final = ("symbol", "start", "open", "high", "low", "close", "volume", "trade_count", "vwap")
PAIR: Final = ("timestamp", "price", "quantity", "bid_price", "ask_price")


@dataclass(frozen=True)
class Records:
    """Records in time order: all in `[start, end)`, the newest `last`, or the first `limit`."""

    kind: str
    symbols: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    last: int | None = None
    limit: int | None = None
    every_column: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that every engine holds, or all of the kind's own."""
        if not self.every_column:
            return COLUMNS[self.kind]
        names = definition(self.kind).names
        return tuple(names[: names.index("exchange_date")])


@dataclass(frozen=True)
class Bars:
    """A bar for each symbol and interval of `width_us` microseconds in which it was traded."""

    symbols: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    width_us: int = MINUTE_US
    columns: tuple[str, ...] = BAR


@dataclass(frozen=True)
class Extents:
    """Of each symbol the first time, the last one, and how many records of each kind there are."""

    kinds: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """A count is called by its kind."""
        return ("symbol", "first_timestamp", "last_timestamp", *self.kinds)


@dataclass(frozen=True)
class Beside:
    """Each trade of a symbol in `[start, end)`, with the quote that stood."""

    symbol: str
    start: datetime
    end: datetime
    columns: tuple[str, ...] = PAIR


Question: TypeAlias = Records | Bars | Extents | Beside


def questions(day: date = DAYS[2]) -> dict[str, Question]:
    """The questions, those of one day about that one, by what the table calls them."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    noon, over = midnight + timedelta(hours=12), midnight + timedelta(days=1)
    liquid, ten = (SYMBOLS[0],), tuple(SYMBOLS[:10])
    asked: dict[str, Question] = {
        "last 100 trades of a symbol": Records("trades", liquid, last=100),
        "last 100 quotes of a symbol": Records("quotes", liquid, last=100),
        "one hour of a symbol": Records("trades", liquid, noon, noon + timedelta(hours=1)),
        "one hour of it, every column": Records(
            "trades", liquid, noon, noon + timedelta(hours=1), every_column=True
        ),
        "1-min bars of a symbol's day": Bars(liquid, midnight, over),
        "VWAP of 10 symbols, a day": Bars(ten, midnight, over, DAY_US),
        "daily summary of all, 5 days": Bars(width_us=DAY_US),
        "as-of join of a symbol's day": Beside(SYMBOLS[0], midnight, over),
        "min/max/count of all symbols": Extents(("trades",)),
        "the same of both kinds": Extents(("trades", "quotes")),
        "newest 200 of all in a day": Records("trades", (), midnight, over, last=200),
        "15 min of all symbols": Records("trades", (), noon, noon + timedelta(minutes=15)),
    }
    for count in (2, 10, 100):
        several = tuple(SYMBOLS[:count])
        asked[f"1,000 rows of {count} symbols"] = Records("trades", several, noon, limit=1000)
    return asked
