"""Trades for tests: tables with lineage, split into files and a tail, and what a view needs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from k2.lake import DataFileRef, definition
from k2.model import LOADED_PARTITION, Exchange, Topic
from k2.query.port import LogRange, Pin
from k2.query.view import View

EXCHANGES = {
    "ASX": Exchange("ASX", "equities", "Australia/Sydney"),
    "sim": Exchange("sim", "crypto", "UTC"),
    "NYSE": Exchange("NYSE", "equities", "America/New_York"),
    "CME": Exchange("CME", "futures", "America/Chicago", timedelta(hours=7)),
}
COLUMNS = definition("trades").arrow
DAWN = datetime(1970, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def trade(
    symbol: str,
    when: datetime,
    price: str | Decimal,
    quantity: str | Decimal = "1",
    *,
    exchange: str = "sim",
    offset: int = 0,
    partition: int = 0,
    **more: Any,
) -> Row:
    """One trade as a row of the table, lineage included."""
    of = EXCHANGES[exchange]
    return {
        "symbol": symbol,
        "exchange": exchange,
        "timestamp": when,
        "price": Decimal(price),
        "quantity": Decimal(quantity),
        "ingestion_timestamp": when,
        "side": "BUY",
        "price_forming": True,
        "id_space": "",
        "timestamp_nanos": 0,
        "exchange_date": (when + of.day_roll).astimezone(ZoneInfo(of.zone)).date(),
        "log_topic": f"market.{of.asset_class}.trades.{exchange}",
        "log_id": f"log-{exchange}",
        "log_partition": partition,
        "log_offset": offset,
        **more,
    }


def random_trades(
    seed: int,
    count: int,
    *,
    symbols: Sequence[str] = ("A", "B", "C"),
    exchanges: Sequence[str] = ("sim",),
    start: datetime = datetime(2024, 3, 4, 22, tzinfo=UTC),
    span: timedelta = timedelta(hours=3),
    ties: int = 50,
    partitions: int = 2,
    loaded: bool = False,
) -> list[Row]:
    """Trades in log order of each partition; about one in `ties` instants is distinct. Some of them
    `loaded` from files.
    """
    r = np.random.default_rng(seed)
    step = span // max(1, count // ties if ties > 1 else count)
    rows, offsets = [], dict.fromkeys(exchanges, 0)
    for _ in range(count):
        exchange = exchanges[int(r.integers(len(exchanges)))]
        partition = int(r.integers(partitions))
        own: Row = {}
        if loaded and r.integers(3) == 0:
            partition = LOADED_PARTITION
            topic = Topic(EXCHANGES[exchange].asset_class, "trades", exchange, loaded=True)
            own = {"log_topic": str(topic), "log_id": "loads"}
        rows.append(
            trade(
                symbols[int(r.integers(len(symbols)))],
                start + step * int(r.integers(max(1, count // ties if ties > 1 else count))),
                Decimal(int(r.integers(1, 2000))).scaleb(-int(r.integers(0, 9))),
                Decimal(int(r.integers(1, 10**6))).scaleb(-int(r.integers(0, 9))),
                exchange=exchange,
                offset=offsets[exchange],
                partition=partition,
                price_forming=bool(r.integers(8)),
                timestamp_nanos=int(r.integers(3)),
                **own,
            )
        )
        offsets[exchange] += 1
    return rows


def to_table(rows: Iterable[Row], columns: pa.Schema = COLUMNS) -> pa.Table:
    """Rows as a table with all of these columns."""
    plain = pa.schema(
        [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in columns]
    )
    return pa.Table.from_pylist(list(rows), schema=plain).cast(columns)


def order_of(row: Row) -> tuple[Any, ...]:
    """The total order's key."""
    return (
        row["timestamp"],
        row["timestamp_nanos"],
        row["log_topic"],
        row["log_partition"],
        row["log_offset"],
    )


def write_file(
    folder: Path,
    rows: Sequence[Row],
    sequence: int,
    *,
    columns: pa.Schema = COLUMNS,
    order: Callable[[Row], tuple[Any, ...]] = order_of,
    drop: Iterable[str] = (),
) -> DataFileRef:
    """A data file of one commit, as the lake writes it: sorted by symbol, and then by `order`."""
    table = to_table(sorted(rows, key=lambda row: (row["symbol"], *order(row))), columns)
    plain = pa.schema(
        [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema]
    )
    table = table.cast(plain).drop_columns(list(drop))
    path = folder / f"{uuid4()}.parquet"
    pq.write_table(table, path, row_group_size=64, store_decimal_as_integer=True)
    times = [(row["timestamp"] - DAWN) // timedelta(microseconds=1) for row in rows]
    symbols = [row["symbol"] for row in rows]
    return DataFileRef(
        str(path), sequence, len(rows), path.stat().st_size, True, False, None,
        min(symbols), max(symbols), min(times), max(times),
    )  # fmt: skip


@dataclass(frozen=True)
class Files:
    """An index over files made here; a `rough` one cannot tell which commits a file holds."""

    refs: tuple[DataFileRef, ...] = ()
    rough: bool = False

    @property
    def rows(self) -> int:
        """Rows in all files."""
        return sum(ref.rows for ref in self.refs)

    def since(self, commit: int) -> tuple[DataFileRef, ...]:
        """The files that later commits brought."""
        return tuple(ref for ref in self.refs if ref.sequence > commit)

    @property
    def newest(self) -> int | None:
        """The last time of any row."""
        return max((ref.max_timestamp or 0 for ref in self.refs), default=None)

    def select(
        self,
        *,
        symbols: Iterable[str] | None = None,
        dates: tuple[date | None, date | None] | None = None,
        times: tuple[datetime | None, datetime | None] | None = None,
        as_of: int | None = None,
    ) -> tuple[DataFileRef, ...]:
        """The files that may hold such rows; dates narrow those that are of one."""
        first, last = dates or (None, None)
        wanted = list(symbols) if symbols is not None else None
        start, end = times or (None, None)
        return tuple(
            replace(ref, whole=as_of is None or ref.sequence <= as_of)
            for ref in self.refs
            if (first is None or ref.exchange_date is None or ref.exchange_date >= first)
            and (last is None or ref.exchange_date is None or ref.exchange_date <= last)
            and (wanted is None or any(ref.min_symbol <= s <= ref.max_symbol for s in wanted))  # type: ignore[operator]
            and (start is None or DAWN + timedelta(microseconds=ref.max_timestamp or 0) >= start)
            and (end is None or DAWN + timedelta(microseconds=ref.min_timestamp or 0) < end)
            and (as_of is None or ref.sequence <= as_of or self.rough)
        )


def view_of(
    folder: Path,
    commits: Sequence[Sequence[Row]],
    tail: Sequence[Row] = (),
    *,
    exchanges: Mapping[str, Exchange] | None = None,
    pin: Pin | None = None,
) -> View:
    """A view whose n-th commit (from 1) brought `commits[n - 1]`, with this tail."""
    refs = [write_file(folder, rows, n) for n, rows in enumerate(commits, 1) if rows]
    named = {row["exchange"] for rows in (*commits, tail) for row in rows}
    return View(
        table="trades",
        columns=COLUMNS,
        time="timestamp",
        index=Files(tuple(refs)),
        sequence=len(commits),
        offsets=offsets_of([row for rows in commits for row in rows]),
        tail=to_table(tail) if tail else None,
        ranges=ranges_of(tail),
        exchanges=exchanges or {name: EXCHANGES[name] for name in sorted(named)},
        pin=pin,
    )


def offsets_of(rows: Iterable[Row]) -> dict[str, dict[int, int]]:
    """The offsets that a snapshot with these rows has committed."""
    found: dict[str, dict[int, int]] = {}
    for row in rows:
        of = found.setdefault(row["log_topic"], {})
        of[row["log_partition"]] = max(of.get(row["log_partition"], 0), row["log_offset"] + 1)
    return found


def ranges_of(tail: Sequence[Row]) -> tuple[LogRange, ...]:
    """The log ranges that a tail's rows span."""
    found: dict[tuple[str, str, int], list[int]] = {}
    for row in tail:
        place = (row["log_topic"], row["log_id"], row["log_partition"])
        found.setdefault(place, []).append(row["log_offset"])
    return tuple(
        LogRange(*place, min(offsets), max(offsets) + 1) for place, offsets in sorted(found.items())
    )


def split(rows: list[Row], cuts: Sequence[int]) -> list[list[Row]]:
    """The rows cut into parts; the last one is to be the tail."""
    edges = [0, *sorted(cut % (len(rows) + 1) for cut in cuts), len(rows)]
    return [rows[a:b] for a, b in pairwise(edges)]
