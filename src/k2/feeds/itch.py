"""Nasdaq's TotalView-ITCH 5.0 files: `itch:12302019.NASDAQ_ITCH50.gz[?date=2019-12-30&kind=…]`.

Trades are executions of orders (E, and C at another price), of hidden orders (P) and crosses (Q),
with the match number as id; corrections are broken trades (B); instruments the directory (R). The
day, which no message tells, stands in the file's name or in `date`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.feeds.blocks import BlockFeed, Clock, Opened, Progress
from k2.feeds.mapped.options import read_options
from k2.feeds.mapped.records import constant, to_table
from k2.feeds.mapped.rejects import Verdicts
from k2.feeds.mapped.values import decimals
from k2.feeds.mapping import load_mapping
from k2.feeds.nasdaq.messages import BLOCK_BYTES, Array, Block, Ints, read_blocks, times_of
from k2.feeds.nasdaq.orders import Orders
from k2.feeds.port import Feed
from k2.model import CLOCK_SKEW, TIMESTAMP_TYPE, Exchange

SOURCE: Final = "itch"
KINDS: Final = ("instruments", "trades", "corrections")
_OPTIONS: Final = ("kind", "exchange", "mapping", "date", "skew")
_ZONE: Final = ZoneInfo("America/New_York")
_PRICE_UNIT: Final = 10**4
"""Of decimals(18, 8), in one of ITCH's prices."""
_SHARE: Final = 10**8
_SHARES_MAX: Final = 10**10 - 1
_DAY_NANOS: Final = 86_400 * 10**9
_STOCKS: Final = 2**16
_TRADES: Final = ("E", "C", "P", "Q")
# The aggressor stands against the order that rested; of hidden orders and crosses it is not told
# (a P message's side is always B since 2014).
_AGGRESSOR: Final = {b"B": "SELL", b"S": "BUY"}
_CROSSES: Final = {
    **{b"O": "opening cross", b"C": "closing cross"},
    **{b"H": "halt or IPO cross", b"I": "intraday cross"},
}
_NAMED_DAYS: Final = (
    (r"(?<![0-9])(20[0-9]{2})-?([01][0-9])-?([0-3][0-9])(?![0-9])", "ymd"),
    (r"(?<![0-9])([01][0-9])([0-3][0-9])(20[0-9]{2})(?![0-9])", "mdy"),
    (r"(?<![0-9])([01][0-9])([0-3][0-9])([0-9]{2})(?![0-9])", "mdy"),
)
"""How the venue and others write the day into a name: 2019-12-30, 12302019, S123019-v50."""


@dataclass(frozen=True)
class Asked:
    """What a file is to be opened as; `open_file` says what each means."""

    path: Path
    exchange: Exchange
    day: date
    kinds: Sequence[str]
    skew: timedelta
    block_bytes: int


def open_feed(rest: str, position: str | None, clock: Clock) -> Feed:
    """Open `<path>[?date=…][&kind=…][&exchange=…][&mapping=…][&skew=…]` at `position`."""
    path, options, skew = read_options(SOURCE, rest, _OPTIONS)
    return open_file(
        path,
        options.get("mapping"),
        options.get("kind"),
        exchange=options.get("exchange"),
        day=options.get("date"),
        skew=skew,
        clock=clock,
        position=position,
    )


def open_file(
    path: str | Path,
    mapping: str | Path | None = None,
    kind: str | None = None,
    *,
    symbol: str | None = None,
    exchange: str | None = None,
    instruments: str | Path | None = None,
    day: str | None = None,
    skew: timedelta = CLOCK_SKEW,
    clock: Clock,
    progress: Progress | None = None,
    position: str | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Feed:
    """A feed of the records in an ITCH file: of one kind, or of all that it holds.

    `day` (2019-12-30) is the session's, where the file's name does not say it. `exchange` takes the
    place of XNAS; `mapping` names a mapping whose exchange says asset class and zone. The others
    are as in `k2.feeds.csv.open_file`, but that `symbol` and `instruments` have no meaning here.
    Raises `BadInput` for what cannot be.
    """
    path = Path(path)
    if symbol is not None or instruments is not None:
        raise BadInput(
            "an ITCH file tells its symbols itself",
            place=str(path),
            hint="leave --symbol and --instruments out",
        )
    if kind is not None and kind not in KINDS:
        raise BadInput(
            f"K2 reads no {kind} from ITCH", place=str(path), expected=" or ".join(KINDS)
        )
    name = exchange or "XNAS"
    venue = (
        Exchange(name, "equities", _ZONE.key)
        if mapping is None
        else load_mapping(str(mapping)).exchange(name)
    )
    kinds = KINDS if kind is None else (kind,)
    asked = Asked(path, venue, _day_of(path, day), kinds, skew, block_bytes)
    return ItchFeed(asked, clock, progress, position)


class ItchFeed(BlockFeed[Block]):
    """One file as a feed: see `BlockFeed`."""

    def __init__(
        self, asked: Asked, clock: Clock, progress: Progress | None, position: str | None
    ) -> None:
        self._asked = asked
        midnight = datetime(asked.day.year, asked.day.month, asked.day.day, tzinfo=_ZONE)
        self._midnight = int(midnight.timestamp()) * 10**9
        self._orders = Orders()
        self._codes = np.full(_STOCKS, -1, np.int32)
        self._names: list[str] = []
        kinds = "all" if len(asked.kinds) > 1 else asked.kinds[0]
        super().__init__(
            f"{SOURCE}:{kinds}:{asked.path.resolve()}",
            Opened(SOURCE, asked.path, asked.skew, clock, progress, position),
        )

    def _begin(self) -> None:
        self.exchanges = (self._asked.exchange,)
        self._kinds = self._asked.kinds
        self._blocks = read_blocks(self._bytes, str(self._asked.path), self._asked.block_bytes)

    def _again(self) -> "ItchFeed":
        return ItchFeed(self._asked, self._opened.clock, None, None)

    def _is_counted(self, kind: str) -> bool:
        # A trade has its match number, an instrument its day.
        return kind == "corrections"

    def _learn(self, block: Block) -> None:
        """Take what the block says of stocks and orders."""
        stocks = block.records("R", block.rows("R"))
        for locate, stock in zip(stocks["locate"].tolist(), stocks["stock"].tolist(), strict=True):
            if self._codes[locate] < 0:
                self._codes[locate] = len(self._names)
                self._names.append(_text(stock))
        if "trades" not in self._kinds:
            return
        for kind in ("A", "F"):
            added = block.records(kind, block.rows(kind))
            self._orders.add(
                added["order"].astype(np.uint64), added["price"].astype(np.int64), added["side"]
            )
        replaced = block.records("U", block.rows("U"))
        self._orders.replace(
            replaced["order"].astype(np.uint64),
            replaced["new"].astype(np.uint64),
            replaced["price"].astype(np.int64),
        )
        # Those of this block are asked for before the next one is looked at.
        deleted = block.records("D", block.rows("D"))
        self._orders.delete(deleted["order"].astype(np.uint64))

    def _convert(self, block: Block, kind: str, now: datetime) -> tuple[Ints, pa.Table, Verdicts]:
        """A kind's places in the block, their table, and which of them are refused."""
        if kind == "instruments":
            return self._instruments(block, now)
        if kind == "corrections":
            return self._corrections(block, now)
        return self._trades(block, now)

    def _trades(self, block: Block, now: datetime) -> tuple[Ints, pa.Table, Verdicts]:
        parts = [_Trades.of(block, kind, self._orders) for kind in _TRADES]
        strange = block.strange()
        rows = np.concatenate([*(part.rows for part in parts), strange])
        order = np.argsort(rows, kind="stable")
        made = _Trades.joined(parts, len(strange)).taken(order)
        rows = rows[order]
        verdicts = Verdicts(len(rows))
        for number in np.unique(block.types[strange]).tolist():
            of_type = (made.type == b"") & (block.types[rows] == number)
            verdicts.refuse(of_type, None, _strange(number), "a message of ITCH 5.0")
        verdicts.refuse(
            (made.type == b"E") & ~made.known, "order", "the order was never added", "an A or F"
        )
        verdicts.refuse(
            (made.shares < 0) | (made.shares > _SHARES_MAX), "shares", "so many cannot be"
        )
        shared = self._shared(made.locate, made.time, now, verdicts)
        n = len(rows)
        pieces = ['{"message":"', made.texts("type"), '"']
        if (made.order > 0).any():
            order_text = pa.array(made.order).cast(pa.string())
            whole = pc.binary_join_element_wise(',"order":"', order_text, '"', "")
            pieces.append(pc.if_else(pa.array(made.order > 0), whole, ""))
        columns = shared | {
            "trade_id": pa.array(made.match).cast(pa.string()),
            "id_space": constant(self._asked.day.isoformat(), n),
            "price": decimals(made.price * _PRICE_UNIT),
            "quantity": decimals(made.shares * _SHARE),
            "side": _coded(made.side, _AGGRESSOR, "UNKNOWN"),
            "conditions": made.conditions(),
            "price_forming": pa.array(made.printable),
            "vendor_data": pc.binary_join_element_wise(*pieces, "}", ""),
        }
        return rows, to_table("trades", n, columns), verdicts

    def _corrections(self, block: Block, now: datetime) -> tuple[Ints, pa.Table, Verdicts]:
        rows = block.rows("B")
        broken = block.records("B", rows)
        verdicts = Verdicts(len(rows))
        columns = self._shared(broken["locate"], times_of(broken), now, verdicts) | {
            "action": constant("BUST", len(rows)),
            "trade_id": pa.array(broken["match"].astype(np.uint64)).cast(pa.string()),
            "id_space": constant(self._asked.day.isoformat(), len(rows)),
            "reason": constant("broken trade", len(rows)),
        }
        return rows, to_table("corrections", len(rows), columns), verdicts

    def _instruments(self, block: Block, now: datetime) -> tuple[Ints, pa.Table, Verdicts]:
        rows = block.rows("R")
        stocks = block.records("R", rows)
        n = len(rows)
        about = [
            _json(
                {name: _text(row[name]) for name in _ABOUT} | {"round_lot": str(row["round_lot"])}
            )
            for row in stocks
        ]
        verdicts = Verdicts(n)
        columns = self._shared(stocks["locate"], times_of(stocks), now, verdicts) | {
            "currency": constant("USD", n),
            "valid_from": pa.array([self._asked.day] * n, pa.date32()),
            "vendor_data": pa.array(about, pa.string()),
        }
        return rows, to_table("instruments", n, columns), verdicts

    def _shared(
        self, locate: Array, time: Ints, now: datetime, verdicts: Verdicts
    ) -> dict[str, pa.Array]:
        """The columns that all kinds have; rows of a stock that was never listed are refused."""
        n = len(time)
        codes = self._codes[locate.astype(np.int64)]
        for number in np.unique(locate[codes < 0]).tolist():
            why = f"stock {number} stands for no symbol: no message before it says which"
            verdicts.refuse(locate == number, "symbol", why, "an R before it")
        verdicts.refuse(time >= _DAY_NANOS, "timestamp", "the time is after the day's end")
        nanos = time + self._midnight
        return {
            "symbol": pa.DictionaryArray.from_arrays(
                pa.array(np.maximum(codes, 0)), pa.array(self._names or [""], pa.string())
            ),
            "exchange": constant(self._asked.exchange.name, n),
            "asset_class": constant(self._asked.exchange.asset_class, n),
            "currency": constant("USD", n),
            "source": constant(SOURCE, n),
            "ingestion_timestamp": pa.repeat(pa.scalar(now, TIMESTAMP_TYPE), n),
            "timestamp": pa.array(nanos // 1000, TIMESTAMP_TYPE),
            "timestamp_nanos": pa.array((nanos % 1000).astype(np.int32)),
        }


@dataclass(frozen=True)
class _Trades:
    """Messages that tell of trades, as columns. `side` is the resting order's, `known` whether an
    execution's order is, `cross` the sort of a cross. `rows` are their places in the block.
    """

    rows: Ints
    type: Array
    locate: Array
    time: Ints
    price: Ints
    shares: Ints
    match: npt.NDArray[np.uint64]
    order: npt.NDArray[np.uint64]
    side: Array
    known: npt.NDArray[np.bool_]
    printable: npt.NDArray[np.bool_]
    cross: Array

    @classmethod
    def of(cls, block: Block, kind: str, orders: Orders) -> "_Trades":
        rows = block.rows(kind)
        found = block.records(kind, rows)
        if kind == "Q":
            # A cross in which nothing was traded is told of as well.
            rows, found = rows[found["shares"] > 0], found[found["shares"] > 0]
        n = len(rows)
        of = found.dtype.names or ()
        order = found["order"].astype(np.uint64) if "order" in of else np.zeros(n, np.uint64)
        known, price, side = np.ones(n, np.bool_), np.zeros(n, np.int64), np.zeros(n, "S1")
        if kind in ("E", "C"):
            known, price, side = orders.find(order)
        return cls(
            rows,
            found["type"],
            found["locate"],
            times_of(found),
            found["price"].astype(np.int64) if "price" in of else price,
            found["shares"].astype(np.int64),
            found["match"].astype(np.uint64),
            order,
            side,
            known,
            found["printable"] != b"N" if "printable" in of else np.ones(n, np.bool_),
            found["cross"] if "cross" in of else np.zeros(n, "S1"),
        )

    @classmethod
    def joined(cls, parts: Sequence["_Trades"], strange: int) -> "_Trades":
        """All of them, and behind them as many messages that nobody knows."""
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in cls.__dataclass_fields__
        }
        return cls(
            **{
                name: np.concatenate([column, np.zeros(strange, column.dtype)])
                for name, column in columns.items()
            }
        )

    def taken(self, order: Ints) -> "_Trades":
        return _Trades(**{n: getattr(self, n)[order] for n in self.__dataclass_fields__})

    def texts(self, name: str) -> pa.Array:
        return pa.array(getattr(self, name).astype(str), pa.string())

    def conditions(self) -> pa.Array:
        codes = np.zeros(len(self.rows), np.int32)
        codes[self.type == b"Q"] = 1
        for number, cross in enumerate(_CROSSES, 2):
            codes[self.cross == cross] = number
        names = ["", "cross", *_CROSSES.values(), "hidden", "not printed"]
        codes[self.type == b"P"] = names.index("hidden")
        codes[~self.printable] = names.index("not printed")
        return pa.DictionaryArray.from_arrays(
            pa.array(codes, mask=codes == 0), pa.array(names, pa.string())
        )


_ABOUT: Final = (
    *("category", "status", "round_lots_only", "issue", "subtype", "authentic", "short_sale"),
    *("ipo", "luld_tier", "etp", "inverse"),
)


def _coded(values: Array, meanings: Mapping[bytes, str], other: str) -> pa.Array:
    """A dictionary column: what each value means."""
    codes = np.zeros(len(values), np.int32)
    for number, value in enumerate(meanings, 1):
        codes[values == value] = number
    names = pa.array([other, *meanings.values()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(codes), names)


def _strange(number: int) -> str:
    letter = chr(number) if 32 < number < 127 else f"byte {number}"
    return f"message {letter} is none that there is, or not as long as it must be"


def _json(told: Mapping[str, str]) -> str:
    import orjson

    return orjson.dumps({name: value for name, value in told.items() if value}).decode()


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip()


def _day_of(path: Path, told: str | None) -> date:
    """The session's day, as it was `told` or as the file's name says it."""
    try:
        if told is not None:
            return date.fromisoformat(told)
        for pattern, order in _NAMED_DAYS:
            if match := re.search(pattern, path.name):
                year, month, day = (int(match[1 + order.index(part)]) for part in "ymd")
                return date(year if year > 99 else 2000 + year, month, day)
    except ValueError as error:
        raise BadInput(f"this is no day: {error}", place=str(path), found=told) from error
    raise BadInput(
        "no message of ITCH tells its day, and the file's name does not either",
        place=str(path),
        expected="a name such as 12302019.NASDAQ_ITCH50.gz or 2019-12-30.itch",
        hint=f"rename the file, or `k2 feed '{SOURCE}:{path.name}?date=2019-12-30'`",
    )
