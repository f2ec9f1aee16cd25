"""A small market whose feed has faults: skipped, doubled, late, malformed and unreadable records.

Comes in: a source of chance. Goes out: chunks of records, kept, so that a feed may read them again
from any position; and the numbers that nobody ever sent.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa

from k2.chaos.faults import Seam
from k2.feeds import EndOfFeed, FeedInterrupted, Records
from k2.model import Exchange, Topic, latest

EXCHANGE: Final = Exchange("chaos", "crypto", "UTC")
KINDS: Final = ("trades", "quotes", "gaps", "rejects")
TOPICS: Final[Mapping[str, Topic]] = {
    kind: Topic(EXCHANGE.asset_class, kind, EXCHANGE.name) for kind in KINDS
}
COUNTED: Final = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "DOGEUSDT")
"""Symbols whose trades have ids that count up; the first two are of tier 1."""
NAMED: Final = "HEXUSDT"
"""Its ids are no numbers."""
NAMELESS: Final = "FILEUSDT"
"""Its trades have no ids: they are told apart by their content."""

_START: Final = datetime(2026, 1, 5, 23, 59, 55, tzinfo=UTC)
_DAY_AHEAD: Final = timedelta(days=1)
_Row = dict[str, Any]


class Market:
    """What was ever sent, in chunks. By symbol, `skipped` are numbers of trades that the feed told
    to be missing (some come late), `spoiled` those of malformed ones.
    """

    def __init__(self, chance: random.Random, seam: Seam) -> None:
        self.chunks: list[list[Records]] = []
        self.skipped: dict[str, set[int]] = defaultdict(set)
        self.spoiled: dict[str, set[int]] = defaultdict(set)
        self._chance = chance
        self._seam = seam
        self._next: dict[str, int] = defaultdict(lambda: 1)
        self._ticks = 0
        self._late: list[_Row] = []

    def trade_on(self, records: int) -> None:
        """One more chunk of about so many records, with faults in it."""
        rows: dict[str, list[_Row]] = {kind: [] for kind in KINDS}
        for _ in range(records):
            if self._chance.random() < 0.25:
                rows["quotes"].append(self._quote(self._chance.choice(COUNTED)))
            else:
                rows["trades"].append(self._trade(self._chance.choice((*COUNTED, NAMED, NAMELESS))))
        for fault in self._chance.sample(_FAULTS, self._chance.randrange(3)):
            fault(self, rows)
        self.chunks.append([to_records(kind, found) for kind, found in rows.items() if found])

    def again(self, behind: int) -> None:
        """A chunk that was sent before, once more (a venue that repeats after a reconnect)."""
        self.chunks.append(self.chunks[-behind])
        self._tell("doubled")

    def _tell(self, kind: str) -> None:
        self._seam.tally[self._seam.name, kind] += 1

    def _now(self) -> datetime:
        self._ticks += 1
        return _START + timedelta(milliseconds=40 * self._ticks)

    def nameless(self, symbol: str) -> _Row:
        """A trade without an id."""
        when = self._now()
        return {
            "symbol": symbol,
            "exchange": EXCHANGE.name,
            "timestamp": when,
            "price": Decimal(self._chance.randrange(1, 10**6)).scaleb(-2),
            "quantity": Decimal(self._chance.randrange(1, 10**4)).scaleb(-3),
            "ingestion_timestamp": when + timedelta(milliseconds=self._chance.randrange(50)),
            "side": "BUY",
            "price_forming": True,
            "id_space": "",
            "timestamp_nanos": 0,
            "source": "chaos",
        }

    def _trade(self, symbol: str) -> _Row:
        row = self.nameless(symbol)
        if symbol == NAMELESS:
            # Few different ones: some equal another in all but their ordinal.
            price = Decimal(self._chance.randrange(1, 4))
            fixed = _START + timedelta(milliseconds=self._chance.randrange(5))
            alike = {"price": price, "quantity": Decimal(1), "timestamp": fixed}
            return row | alike | {"occurrence": self._count(f"{price} {fixed}")}
        number = self._count(symbol)
        return row | {"trade_id": f"{number:x}-{symbol}" if symbol == NAMED else str(number)}

    def _quote(self, symbol: str) -> _Row:
        when = self._now()
        bid = Decimal(self._chance.randrange(1, 10**6)).scaleb(-2)
        return {
            "symbol": symbol,
            "exchange": EXCHANGE.name,
            "timestamp": when,
            "bid_price": bid,
            "bid_quantity": Decimal(1),
            "ask_price": bid + 1,
            "ask_quantity": Decimal(2),
            "ingestion_timestamp": when,
            "id_space": "",
            "source": "chaos",
            "source_sequence": self._count(f"quotes {symbol}"),
            "timestamp_nanos": 0,
        }

    def _count(self, name: str) -> int:
        number = self._next[name]
        self._next[name] += 1
        return number

    # ---------------------------------------------------------------- faults, each once a chunk

    def _skip(self, rows: dict[str, list[_Row]]) -> None:
        """Trades that nobody sends, and the feed's word of it. Some come late after all."""
        symbol, before = self._chance.choice(COUNTED), self._now()
        skipped = [self._trade(symbol) for _ in range(self._chance.randrange(1, 20))]
        numbers = [int(row["trade_id"]) for row in skipped]
        rows["trades"].append(self._trade(symbol))
        rows["gaps"].append(
            {
                "exchange": EXCHANGE.name,
                "symbol": symbol,
                "kind": "trades",
                "source": "chaos",
                "first_missing": numbers[0],
                "last_missing": numbers[-1],
                "from_timestamp": before,
                "to_timestamp": self._now(),
                "cause": "disconnect",
                "ingestion_timestamp": self._now(),
            }
        )
        self._late += [row for row in skipped if self._chance.random() < 0.3]
        self.skipped[symbol] |= set(numbers)
        self._tell("dropped")

    def _come_late(self, rows: dict[str, list[_Row]]) -> None:
        if self._late:
            rows["trades"] += self._late
            self._late = []
            self._tell("late")

    def _double(self, rows: dict[str, list[_Row]]) -> None:
        trades = rows["trades"]
        trades += self._chance.choices(trades, k=self._chance.randrange(1, 6)) if trades else []
        self._tell("doubled")

    def _reorder(self, rows: dict[str, list[_Row]]) -> None:
        for found in rows.values():
            self._chance.shuffle(found)
        self._tell("reordered")

    def _malform(self, rows: dict[str, list[_Row]]) -> None:
        bad = self._trade(self._chance.choice(COUNTED))
        self.spoiled[bad["symbol"]].add(int(bad["trade_id"]))
        wrong = self._chance.choice(
            (
                {"quantity": Decimal(-1)},
                {"price": Decimal(0)},
                {"timestamp": bad["ingestion_timestamp"] + _DAY_AHEAD},
                {"exchange": "elsewhere"},
            )
        )
        rows["trades"].insert(self._chance.randrange(len(rows["trades"]) + 1), bad | wrong)
        self._tell("malformed")

    def _unreadable(self, rows: dict[str, list[_Row]]) -> None:
        rows["rejects"].append(
            {
                "exchange": EXCHANGE.name,
                "kind": "trades",
                "source": "chaos",
                "line": self._count("lines"),
                "reason": "no number",
                "raw": self._chance.randbytes(12),
                "ingestion_timestamp": self._now(),
            }
        )
        self._tell("unreadable")


_FAULTS: Final[tuple[Callable[[Market, dict[str, list[_Row]]], None], ...]] = (
    Market._skip,
    Market._come_late,
    Market._double,
    Market._reorder,
    Market._malform,
    Market._unreadable,
)


def to_records(kind: str, rows: Sequence[_Row], version: pa.Schema | None = None) -> Records:
    """The rows as a feed gives them, or as an older K2 did."""
    schema = version or latest(kind).arrow
    columns = {field.name: [row.get(field.name) for row in rows] for field in schema}
    return Records(kind, EXCHANGE.name, pa.table(columns, schema=schema))


class MarketFeed:
    """`k2.feeds.Feed` of what the market has sent so far. Point of its seam: `receive`."""

    name: str = "chaos:market"
    exchanges: Sequence[Exchange] = (EXCHANGE,)

    def __init__(self, market: Market, position: str | None, seam: Seam) -> None:
        self._market = market
        self._at = int(position or 0)
        self._seam = seam

    def read(self) -> Sequence[Records]:
        """The next chunk."""
        if self._seam.strikes("receive"):
            raise FeedInterrupted("the venue hung up (chaos)", timedelta(0))
        if self._at >= len(self._market.chunks):
            raise EndOfFeed
        self._at += 1
        return self._market.chunks[self._at - 1]

    def position(self) -> str:
        """How many chunks were read."""
        return str(self._at)

    def close(self) -> None:
        """Nothing is open."""
