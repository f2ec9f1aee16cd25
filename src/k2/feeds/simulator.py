"""The simulated exchange: `simulator:?symbols=50&rate=20000&seed=7`, a feed that needs no venue.

Comes in: parameters and a record number to resume at. Goes out: trades and quotes, the same for
the same parameters on any machine; live ones carry the clock's times, the others a calendar's.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from urllib.parse import parse_qsl

import numpy as np
import pyarrow as pa

from k2.errors import BadInput
from k2.feeds.faults import Emitted, emit, injected
from k2.feeds.market import BLOCK, MOST_RECORDS, MOST_SYMBOLS, Block, Ints, Market, Parameters
from k2.feeds.port import EndOfFeed, Records
from k2.model import DICTIONARY_TYPE, PRICE_TYPE, TIMESTAMP_TYPE, Exchange, latest

__all__ = ["Options", "SimulatorFeed", "injected", "open_feed", "parse"]

KINDS: Final = ("trades", "quotes")
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

PULSE_SECONDS: Final = 0.01
"""A live feed looks at the clock a hundred times a second, so that reading it is no busy loop."""

BEHIND: Final = 1_000_000
"""Microseconds that a live market may lag behind the clock; beyond, it waits for its reader."""


@dataclass(frozen=True)
class Options:
    """What the URL asked for: the market, and how it is told.

    `live`: records come at the market's pace with the clock's times; else as fast as they are
    read, with times from `start` on. `chunk`: the most records that one `read` returns.
    """

    market: Parameters
    live: bool
    exchange: str
    start: datetime
    chunk: int


def open_feed(rest: str, position: str | None, clock: Callable[[], datetime]) -> "SimulatorFeed":
    """The feed of a URL, `rest` being what follows `simulator:`, from `position` on.

    Parameters: `symbols` (20), `rate` (1000, records/s, or `max`), `seed` (1), `exchange`
    (simulated), `kinds` (trades,quotes), `count` (of records, 2**40), `start`
    (2026-01-05T00:00:00Z) and `nominal` (20000, records/s of market time) for `rate=max`, `chunk`
    (65536), and shares of records with a fault: `gaps`, `duplicates`, `late`, `malformed` (0).
    Raises `BadInput` for a parameter or position that cannot be.
    """
    number = 0 if position is None else _number(position)
    if number is None:
        raise BadInput(
            "the position is none of a simulator's", found=position, expected="a record number"
        )
    return SimulatorFeed(parse(rest), number, clock)


def parse(rest: str) -> Options:
    """The options of `?symbols=50&rate=max`. Raises `BadInput`, naming the parameter."""
    text = rest.removeprefix("?")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True) if text else []
    except ValueError as error:
        raise BadInput(
            "the simulator's parameters cannot be read",
            found=rest,
            expected="?name=value&name=value",
        ) from error
    given = dict(pairs)
    if unknown := [name for name in given if name not in _EXPECTED]:
        raise BadInput(
            f"the simulator has no parameter {unknown[0]!r}", expected=", ".join(_EXPECTED)
        )
    if len(given) < len(pairs):
        raise BadInput("a parameter of the simulator is given twice", found=rest)
    live = given.get("rate") != "max"
    market = Parameters(
        seed=_whole(given, "seed", 1, 0, 2**32 - 1),
        symbols=_whole(given, "symbols", 20, 1, MOST_SYMBOLS),
        kinds=_kinds(given),
        pace=_whole(given, "rate", 1_000, 1, 10_000_000)
        if live
        else _whole(given, "nominal", 20_000, 1, 10_000_000),
        gaps=_share(given, "gaps"),
        duplicates=_share(given, "duplicates"),
        late=_share(given, "late"),
        malformed=_share(given, "malformed"),
        count=_whole(given, "count", MOST_RECORDS, 0, MOST_RECORDS),
    )
    if market.gaps + market.duplicates + market.late + market.malformed > 2**32:
        raise BadInput("more faults than records", found=rest, expected="shares of at most 1")
    exchange = Exchange(given.get("exchange", "simulated"), "crypto", "UTC").name
    return Options(market, live, exchange, _start(given), _whole(given, "chunk", BLOCK, 1, BLOCK))


class SimulatorFeed:
    """A market as a feed. Its position is the number of the next record, as decimal text."""

    def __init__(self, options: Options, number: int, clock: Callable[[], datetime]) -> None:
        identity = asdict(options.market)
        # A longer run of the same market goes on where the shorter one ended.
        del identity["count"]
        digest = hashlib.sha256(repr(sorted(identity.items())).encode()).hexdigest()[:8]
        self.name = f"simulator-{options.exchange}-{digest}"
        self.exchanges: Sequence[Exchange] = (
            Exchange(options.exchange, "crypto", "UTC", numbered=KINDS),
        )
        self._options = options
        self._market = Market(options.market)
        self._next = number
        self._clock = clock
        # Numbers count up from 1 in each market: markets that differ share no space of ids.
        self._columns = _Columns(self._market, options.exchange, digest)
        self._block: tuple[int, Block, Emitted, Mapping[str, _Part]] | None = None
        # When the market began, in microseconds since 1970; of a live one, as if it had.
        self._zero = None if options.live else _micros(options.start)
        self._seen = 0
        self._next_look = 0.0

    def read(self) -> Sequence[Records]:
        """The records that are due, at most `chunk`: one table a kind. Waits up to 10 ms if live.

        Raises `EndOfFeed` after `count` records.
        """
        end = self._options.market.count
        if self._next >= end:
            raise EndOfFeed
        number, first = divmod(self._next, BLOCK)
        block, parts = self._open_block(number)
        stop = min(first + self._options.chunk, BLOCK, end - number * BLOCK)
        if self._options.live:
            self._wait()
        now = _micros(self._clock())
        if self._options.live:
            stop = min(stop, self._due(block.times, first, now))
            if stop <= first:
                return ()
        self._next = number * BLOCK + stop
        assert self._zero is not None
        found = [
            Records(kind, self._options.exchange, part.table(first, stop, self._zero, now))
            for kind, part in parts.items()
        ]
        return [records for records in found if records.table.num_rows]

    def position(self) -> str:
        """The number of the record after the last that `read` returned."""
        return str(self._next)

    def close(self) -> None:
        """Nothing to let go of."""

    def _open_block(self, number: int) -> tuple[Block, Mapping[str, "_Part"]]:
        if self._block is None or self._block[0] != number:
            block = self._market.block(number)
            emitted = emit(self._options.market, block)
            parts = {
                kind: self._columns.part(kind, block, emitted)
                for kind in self._options.market.kinds
            }
            self._block = number, block, emitted, parts
        return self._block[1], self._block[3]

    def _wait(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            time.sleep(self._next_look - now)
        self._next_look = time.monotonic() + PULSE_SECONDS

    def _due(self, times: Ints, first: int, now: int) -> int:
        """Records of the block that are due by `now`: the number of the first that is not."""
        begun = now - int(times[first])
        # The market waits for a reader that comes late, and follows a clock that was set back.
        if self._zero is None or now < self._seen or begun - self._zero > BEHIND:
            self._zero = begun
        self._seen = now
        return int(np.searchsorted(times, now - self._zero, side="right"))


@dataclass(frozen=True)
class _Part:
    """The rows of one kind in a block: the slot in which each comes out, ascending."""

    schema: pa.Schema
    slots: Ints
    times: Ints
    columns: Mapping[str, pa.Array]

    def table(self, first: int, stop: int, zero: int, now: int) -> pa.Table:
        """Rows of the slots `first` to `stop` (exclusive), seen at `now` (microseconds)."""
        low, high = (int(n) for n in np.searchsorted(self.slots, (first, stop)))
        times = {
            "timestamp": self.times[low:high] + zero,
            "ingestion_timestamp": np.full(high - low, now, dtype=np.int64),
        }
        return pa.Table.from_arrays(
            [
                pa.array(times[name]).cast(TIMESTAMP_TYPE)
                if name in times
                else self.columns[name].slice(low, high - low)
                for name in self.schema.names
            ],
            schema=self.schema,
        )


class _Columns:
    """Arrow columns from a block's integers; those that never change are made once."""

    def __init__(self, market: Market, exchange: str, id_space: str) -> None:
        self._names = pa.array(market.names)
        self._sides = pa.array(["SELL", "BUY"])
        rows = 2 * BLOCK
        self._constant = {
            "exchange": _constant(exchange, rows),
            "id_space": _constant(id_space, rows),
            "currency": _constant("USDT", rows),
            "asset_class": _constant("crypto", rows),
            "source": _constant("simulator", rows),
            "price_forming": pa.repeat(pa.scalar(True), rows),
            "timestamp_nanos": pa.array(np.zeros(rows, dtype=np.int32)),
            "conditions": pa.nulls(rows, DICTIONARY_TYPE),
            "source_received_timestamp": pa.nulls(rows, TIMESTAMP_TYPE),
            "occurrence": pa.nulls(rows, pa.int32()),
            "vendor_data": pa.nulls(rows, pa.string()),
        }
        self._no_sequence = pa.nulls(rows, pa.int64())

    def part(self, kind: str, block: Block, emitted: Emitted) -> _Part:
        """The rows of one kind among those that a block emits."""
        which = np.flatnonzero(block.is_quote[emitted.rows] == (kind == "quotes"))
        rows = emitted.rows[which]
        sequences = pa.array(block.sequences[rows])
        columns: dict[str, Any] = {
            name: column.slice(0, len(rows)) for name, column in self._constant.items()
        }
        columns["symbol"] = pa.DictionaryArray.from_arrays(
            pa.array(block.symbols[rows].astype(np.int32)), self._names
        )
        (first, second), (small, large) = emitted.prices, emitted.quantities
        if kind == "trades":
            columns["price"] = _decimals(first[rows])
            columns["quantity"] = _decimals(small[rows])
            columns["trade_id"] = sequences.cast(pa.string())
            columns["side"] = pa.DictionaryArray.from_arrays(
                pa.array(block.is_buy[rows].astype(np.int32)), self._sides
            )
            columns["source_sequence"] = self._no_sequence.slice(0, len(rows))
        else:
            columns["bid_price"], columns["ask_price"] = (
                _decimals(first[rows]),
                _decimals(second[rows]),
            )
            columns["bid_quantity"] = _decimals(small[rows])
            columns["ask_quantity"] = _decimals(large[rows])
            columns["source_sequence"] = sequences
        return _Part(latest(kind).arrow, emitted.slots[which], emitted.times[rows], columns)


def _constant(value: str, rows: int) -> pa.Array:
    zeros = pa.array(np.zeros(rows, dtype=np.int32))
    return pa.DictionaryArray.from_arrays(zeros, pa.array([value]))


def _decimals(units: Ints) -> pa.Array:
    """Integers in 1e-8 as decimal128(18, 8), by their 16 bytes: no value is converted twice."""
    wide = np.empty((len(units), 2), dtype="<i8")
    wide[:, 0] = units
    wide[:, 1] = units >> 63
    return pa.Array.from_buffers(PRICE_TYPE, len(units), [None, pa.py_buffer(wide)])


def _micros(when: datetime) -> int:
    return (when - EPOCH) // timedelta(microseconds=1)


_EXPECTED: Final = (
    *("symbols", "rate", "seed", "exchange", "kinds", "count", "start", "nominal", "chunk"),
    *("gaps", "duplicates", "late", "malformed"),
)


def _number(text: str) -> int | None:
    """The whole number that the text is; None if it is none that a market could count to."""
    if text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= MOST_RECORDS:
        return int(text)
    return None


def _whole(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = given.get(name, str(default))
    number = _number(text)
    if number is not None and least <= number <= most:
        return number
    also = " or max" if name == "rate" else ""
    raise BadInput(
        f"the simulator's {name} cannot be that",
        found=text,
        expected=f"a whole number from {least:,} to {most:,}{also}",
    )


def _share(given: Mapping[str, str], name: str) -> int:
    """A share of records, 0 to 1, as parts of 2**32."""
    text = given.get(name, "0")
    try:
        share = Decimal(text)
        if 0 <= share <= 1:
            return int(share * 2**32)
    except InvalidOperation:
        pass
    raise BadInput(
        f"the simulator's {name} cannot be that", found=text, expected="a share from 0 to 1"
    )


def _kinds(given: Mapping[str, str]) -> tuple[str, ...]:
    text = given.get("kinds", "trades,quotes")
    asked = text.split(",")
    if not set(asked) <= set(KINDS):
        raise BadInput(
            "the simulator has no such kind", found=text, expected="trades, quotes or trades,quotes"
        )
    return tuple(kind for kind in KINDS if kind in asked)


def _start(given: Mapping[str, str]) -> datetime:
    text = given.get("start", "2026-01-05T00:00:00Z")
    try:
        start = datetime.fromisoformat(text)
        if start.tzinfo is not None:
            return start.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadInput(
        "the simulator's start is no time",
        found=text,
        expected="ISO 8601 with a zone, such as 2026-01-05T00:00:00Z",
    )
