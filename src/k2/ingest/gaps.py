"""The gap ledger as it reads: entries of feeds, which noticed holes that they cannot fill, and of
writers, which found numbers missing; and what is missing of them by now.

Comes in: the ledger's files and the tables. Goes out: ranges of ids, and what became of them.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from k2.ingest.closed import Closed
from k2.ingest.marks import ID_COLUMN, reading_files, to_numbers
from k2.lake import Lake, definition
from k2.model import TIMESTAMP_TYPE, micros, plain_schema

_NEAR: Final = timedelta(minutes=1)
"""Records that are missing are no further in time from those beside them than this."""
_LEDGER: Final = (
    *("exchange", "symbol", "id_space", "source", "first_missing", "last_missing"),
    *("from_timestamp", "to_timestamp", "cause"),
)
_RANGE: Final = ("exchange", "symbol", "id_space", "first_missing", "last_missing")
_RECORD: Final = pa.schema(
    [
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        ("id_space", pa.string()),
        ("timestamp", TIMESTAMP_TYPE),
    ]
)
_STREAM: Final = ("exchange", "symbol", "kind", "id_space")
_TIMES: Final = ("from_timestamp", "to_timestamp")


@dataclass(frozen=True)
class Entry:
    """One range of the ledger; ids inclusive, `after` and `before` the times beside it."""

    exchange: str
    symbol: str
    kind: str
    id_space: str
    source: str
    first: int
    last: int
    after: datetime | None
    before: datetime | None
    cause: str


STATES: Final = ("open", "filling", "filled", "given up", "retired")
"""What an entry of the gap ledger may have come to."""

STATE: Final = pa.schema(
    [("missing", pa.int64()), ("state", pa.string()), ("refill_from", pa.string())]
)
"""Columns that tell what has become of an entry of the gap ledger."""


def with_state(lake: Lake, rows: pa.Table) -> pa.Table:
    """The ledger's rows, and the columns of `STATE`.

    `missing`: numbers of the range that the tables do not have (null: it has no range). `state`:
    open; filling, by the writer; filled; given up, where nobody can be asked, or the feed that
    noticed has asked for nothing; retired, where its day is not kept, so that nothing is missing.
    `refill_from`: log or venue, while something is missing there.
    """
    missing: list[int | None] = [None] * rows.num_rows
    plain = rows.to_pylist()
    streams = defaultdict(list)
    for at, row in enumerate(plain):
        ranged = row["first_missing"] is not None and row["last_missing"] is not None
        if row["kind"] in ID_COLUMN and row["symbol"] and ranged:
            streams[tuple(row[name] or "" for name in _STREAM)].append(at)
        elif ranged:
            missing[at] = row["last_missing"] - row["first_missing"] + 1
    for (exchange, symbol, kind, id_space), places in streams.items():
        entries = [_to_entry(plain[at], kind, id_space) for at in places]
        ids, _ = present_ids(lake, exchange, symbol, entries)
        for at, entry in zip(places, entries, strict=True):
            low, high = np.searchsorted(ids, [entry.first, entry.last + 1]).tolist()
            missing[at] = entry.last - entry.first + 1 - (high - low)
    states = [_state(row, left) for row, left in zip(plain, missing, strict=True)]
    for at in _retired(lake, plain):
        missing[at], states[at] = 0, "retired"
    sources = [_source(row, state) for row, state in zip(plain, states, strict=True)]
    for field, values in zip(STATE, (missing, states, sources), strict=True):
        rows = rows.append_column(field, pa.array(values, field.type))
    return rows


def _retired(lake: Lake, rows: Sequence[Mapping[str, Any]]) -> Iterator[int]:
    """The places of entries whose days are not kept: what filled them is gone with it."""
    for kind in sorted({row["kind"] for row in rows}.intersection(ID_COLUMN)):
        is_closed = _closed_of(lake, kind)
        for at, row in enumerate(rows):
            times = [row[name] for name in _TIMES]
            if row["kind"] == kind and is_closed(row["exchange"], row["symbol"] or "", times):
                yield at


def of_kept_days(lake: Lake, kind: str, entries: Sequence[Entry]) -> list[Entry]:
    """The entries of a kind, but for those whose days are not kept."""
    is_closed = _closed_of(lake, kind)
    return [e for e in entries if not is_closed(e.exchange, e.symbol, [e.after, e.before])]


def _closed_of(lake: Lake, kind: str) -> Callable[[str, str, Sequence[datetime | None]], bool]:
    """Whether all days between times at an exchange are closed to a symbol."""
    if not lake.has(kind) or not (snapshot := lake.table(kind).snapshot()).retired.commit:
        return lambda exchange, symbol, times: False
    closed = Closed(lake, kind)

    def is_closed(exchange: str, symbol: str, times: Sequence[datetime | None]) -> bool:
        of = snapshot.exchanges.get(exchange)
        known = [time for time in times if time is not None]
        return of is not None and closed.between(of, symbol, known, snapshot.retired)[1]

    return is_closed


def _state(row: Mapping[str, Any], missing: int | None) -> str:
    if missing == 0:
        return "filled"
    if row["cause"] == "shed":
        return "filling"
    return "open" if _source(row, "open") and row["source"] is None else "given up"


def _source(row: Mapping[str, Any], state: str) -> str | None:
    if state in ("filled", "retired"):
        return None
    if row["cause"] == "shed":
        return "log"
    # Only where something is missing: it brings the clients of venues with it.
    from k2.feeds.live.past import venue_of

    asked = row["kind"] == "trades" and row["symbol"] and not row["id_space"]
    return "venue" if asked and venue_of(row["exchange"], [row["symbol"]], None) else None


def _to_entry(row: Mapping[str, Any], kind: str, id_space: str) -> Entry:
    return Entry(
        *(row["exchange"], row["symbol"], kind, id_space, row["source"] or row["exchange"]),
        *(row["first_missing"], row["last_missing"]),
        *(row["from_timestamp"], row["to_timestamp"], row["cause"]),
    )


def read_entries(
    paths: Sequence[str], kind: str, exchanges: Collection[str], symbols: Collection[str]
) -> list[Entry]:
    """The ranges of ids in these files of the ledger, of one kind, and of these exchanges and
    symbols (of all, where none is named): by exchange and symbol, ascending.
    """
    if not paths:
        return []
    with reading_files():
        condition = _of(kind, exchanges, symbols)
        rows = _dataset(paths).to_table(columns=list(_LEDGER), filter=condition)
    order = ("exchange", "symbol", "first_missing", "last_missing")
    rows = rows.sort_by([(name, "ascending") for name in order])
    return [
        Entry(exchange, symbol, kind, id_space or "", source or exchange, *rest)
        for exchange, symbol, id_space, source, *rest in zip(
            *(rows[name].to_pylist() for name in _LEDGER), strict=True
        )
    ]


def read_ranges(
    paths: Sequence[str], kind: str, exchanges: Collection[str], symbols: Collection[str]
) -> Iterator[pa.RecordBatch]:
    """The same ranges as columns, as the files have them: exchange, symbol, id_space, first_missing
    and last_missing (inclusive). A few of them are held at once.
    """
    if not paths:
        return
    with reading_files():
        yield from _dataset(paths).to_batches(
            columns=list(_RANGE),
            filter=_of(kind, exchanges, symbols),
            batch_readahead=1,
            fragment_readahead=1,
        )


def _dataset(paths: Sequence[str]) -> ds.Dataset:
    return ds.dataset(list(paths), schema=plain_schema(definition("gaps").arrow), format="parquet")


def _of(kind: str, exchanges: Collection[str], symbols: Collection[str]) -> pc.Expression:
    # What the log lost has no symbol: its numbers are offsets.
    condition = (pc.field("kind") == kind) & (pc.field("symbol") != "")
    condition &= pc.field("first_missing").is_valid() & pc.field("last_missing").is_valid()
    if exchanges:
        condition &= pc.field("exchange").isin(sorted(exchanges))
    if symbols:
        condition &= pc.field("symbol").isin(sorted(symbols))
    return condition


def present_ids(
    lake: Lake, exchange: str, symbol: str, entries: Sequence[Entry]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ids that the table has of the entries' stream, ascending, and their times in microseconds.

    Where all times of the entries are known, only those of records around these.
    """
    kind, id_space = entries[0].kind, entries[0].id_space
    id_column = ID_COLUMN[kind]
    after = [entry.after for entry in entries if entry.after is not None]
    before = [entry.before for entry in entries if entry.before is not None]
    condition = (pc.field("exchange") == exchange) & (pc.field("symbol") == symbol)
    condition &= pc.coalesce(pc.field("id_space"), pa.scalar("")) == id_space
    start = min(after) - _NEAR if len(after) == len(entries) else None
    end = max(before) + _NEAR if len(before) == len(entries) else None
    if start is not None:
        condition &= pc.field("timestamp") >= start
    if end is not None:
        condition &= pc.field("timestamp") < end
    files = []
    if lake.has(kind):
        files = list(lake.table(kind).snapshot().files.select(symbols=[symbol], times=(start, end)))
    schema = pa.schema([*_RECORD, (id_column, definition(kind).arrow.field(id_column).type)])
    rows = schema.empty_table()
    if files:
        with reading_files():
            dataset = ds.dataset([f.path for f in files], schema=schema, format="parquet")
            rows = dataset.to_table(columns=[id_column, "timestamp"], filter=condition)
    numbers, numeric = to_numbers(rows[id_column])
    ids, first = np.unique(numbers[numeric], return_index=True)
    return ids, micros(rows["timestamp"])[numeric][first]
