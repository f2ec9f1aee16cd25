"""What a venue truly did: each trade and quote that it made, what nobody can have, each fault.

Comes in: events in integers. Goes out: Arrow tables, and a file of JSON Lines or Parquet.
"""

import threading
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.model import PRICE_TYPE, TIMESTAMP_TYPE
from k2.venues.events import Event, Trade
from k2.venues.text import decimal_text

SCHEMA: Final = pa.schema(
    {
        "what": pa.string(),
        "symbol": pa.string(),
        "number": pa.int64(),
        "end": pa.int64(),
        "time": TIMESTAMP_TYPE,
        "side": pa.string(),
        "price": PRICE_TYPE,
        "quantity": PRICE_TYPE,
        "bid_price": PRICE_TYPE,
        "bid_quantity": PRICE_TYPE,
        "ask_price": PRICE_TYPE,
        "ask_quantity": PRICE_TYPE,
        "detail": pa.string(),
    }
)
"""One row for all that is told. `what`: trade, quote, lost, fault. `number`: trade id or update
id; a lost range is `number` to `end` (exclusive). `side`: the aggressor's, BUY or SELL."""

_ROWS: Final = 8_192


class Row(NamedTuple):
    """A row before it is put into columns: prices as text, time in microseconds."""

    what: str
    symbol: str | None = None
    number: int | None = None
    end: int | None = None
    time: int | None = None
    side: str | None = None
    price: str | None = None
    quantity: str | None = None
    bid_price: str | None = None
    bid_quantity: str | None = None
    ask_price: str | None = None
    ask_quantity: str | None = None
    detail: str | None = None


class Truth:
    """All that a venue did, in its order; in memory, or in a file if there is one.

    One thread tells it, any may ask. A file's suffix decides: .parquet, or JSON Lines.
    """

    def __init__(self, names: list[str], path: Path | None = None) -> None:
        self._names = names
        self._lock = threading.Lock()
        self._rows: list[Row] = []
        self._tables: list[pa.Table] = []
        self._parquet = self._lines = None
        if path is not None and path.suffix == ".parquet":
            self._parquet = pq.ParquetWriter(path, SCHEMA)
        elif path is not None:
            self._lines = path.open("wb")

    def made(self, event: Event, *, lost: bool) -> None:
        """The venue made this trade or quote; a `lost` one it will never give to anybody."""
        name, number, time = self._names[event.symbol], event.number, event.time
        texts = [decimal_text(units) for units in event[3:7] if not isinstance(units, bool)]
        if isinstance(event, Trade):
            side = "BUY" if event.is_buy else "SELL"
            self._add(Row("trade", name, number, None, time, side, *texts))
            if lost:
                self._add(Row("lost", name, number, number + 1, time))
        else:
            self._add(Row("quote", name, number, None, time, None, None, None, *texts))

    def fault(self, time: int, detail: str) -> None:
        """A fault came at that time."""
        self._add(Row("fault", time=time, detail=detail))

    def trades(self) -> pa.Table:
        """Trades: symbol, number (the id), time, side (the aggressor's), price, quantity."""
        return self._of("trade", ["symbol", "number", "time", "side", "price", "quantity"])

    def quotes(self) -> pa.Table:
        """Quotes: symbol, number (the update id), time, bid and ask with their quantities."""
        sides = [f"{side}_{what}" for side in ("bid", "ask") for what in ("price", "quantity")]
        return self._of("quote", ["symbol", "number", "time", *sides])

    def lost(self) -> dict[str, list[range]]:
        """By symbol the ranges of trade ids that were neither sent nor are in REST, ascending."""
        found: dict[str, list[range]] = {}
        for row in self._of("lost", ["symbol", "number", "end"]).to_pylist():
            ranges = found.setdefault(row["symbol"], [])
            if ranges and ranges[-1].stop == row["number"]:
                ranges[-1] = range(ranges[-1].start, row["end"])
            else:
                ranges.append(range(row["number"], row["end"]))
        return found

    def faults(self) -> list[str]:
        """The faults that came, in their order."""
        details: list[str] = self._of("fault", ["detail"])["detail"].to_pylist()
        return details

    def flush(self) -> None:
        """Have the file hold all that was told; Parquet does so in larger parts, and at its end."""
        with self._lock:
            if self._lines is not None:
                self._pack()
                self._lines.flush()

    def close(self) -> None:
        """Finish the file."""
        with self._lock:
            self._pack()
            for file in (self._lines, self._parquet):
                if file is not None:
                    file.close()
            self._lines = self._parquet = None

    def _add(self, row: Row) -> None:
        with self._lock:
            self._rows.append(row)
            if len(self._rows) >= _ROWS:
                self._pack()

    def _pack(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        if self._lines is not None:
            self._lines.writelines(_line(row) for row in rows)
            return
        table = _table(rows)
        if self._parquet is not None:
            self._parquet.write_table(table)
        else:
            self._tables.append(table)

    def _of(self, what: str, columns: list[str]) -> pa.Table:
        with self._lock:
            self._pack()
            table = pa.concat_tables([SCHEMA.empty_table(), *self._tables])
        return table.filter(pc.equal(table["what"], what)).select(columns)


def read_truth(path: Path) -> pa.Table:
    """What a venue's truth file holds, as a table of `SCHEMA`."""
    if path.suffix == ".parquet":
        return pq.read_table(path)
    lines = (orjson.loads(line) for line in path.read_bytes().splitlines())
    return _table([Row(**line) for line in lines])


def _table(rows: list[Row]) -> pa.Table:
    columns: list[Any] = list(zip(*rows, strict=True))
    return pa.Table.from_arrays(
        [_column(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )


def _column(values: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return pa.array(values, pa.string()).cast(kind)
    return (
        pa.array(values, pa.int64()).cast(kind)
        if kind == TIMESTAMP_TYPE
        else pa.array(values, kind)
    )


def _line(row: Row) -> bytes:
    told = {name: value for name, value in row._asdict().items() if value is not None}
    return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)
