"""What there is: symbols, and how much each table holds.

Comes in: views. Goes out: small tables. A data file never changes, so what it holds is counted
once and kept; a snapshot's counts are the sum of its files'.
"""

import threading
from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.lake import definition
from k2.model import TIMESTAMP_TYPE, Exchange
from k2.query.port import Engine, Source, Statement
from k2.query.statements import statement
from k2.query.view import View

SYMBOLS: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("asset_class", pa.string()),
        ("trades", pa.int64()),
        ("quotes", pa.int64()),
        ("first_timestamp", TIMESTAMP_TYPE),
        ("last_timestamp", TIMESTAMP_TYPE),
    ]
)
"""Columns of `Reader.symbols`."""

STATS: Final = pa.schema(
    [
        ("table", pa.string()),
        ("rows", pa.int64()),
        ("files", pa.int64()),
        ("bytes", pa.int64()),
        ("commit", pa.int64()),
        ("snapshot_id", pa.string()),
        ("committed_at", TIMESTAMP_TYPE),
        ("first_timestamp", TIMESTAMP_TYPE),
        ("last_timestamp", TIMESTAMP_TYPE),
        ("tail_rows", pa.int64()),
        ("lag_messages", pa.int64()),
    ]
)
"""Columns of `Reader.stats`; ids are text, since JavaScript's numbers end at 2^53."""

SNAPSHOTS: Final = pa.schema(
    [
        ("commit", pa.int64()),
        ("snapshot_id", pa.string()),
        ("committed_at", TIMESTAMP_TYPE),
        ("operation", pa.string()),
        ("rows", pa.int64()),
        ("duplicates", pa.int64()),
        ("rejected", pa.int64()),
        ("tags", pa.string()),
    ]
)
"""Columns of `Reader.snapshots`; `tags` are names of that state, with commas between."""

_COUNTS: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("rows", pa.int64()),
        ("first", TIMESTAMP_TYPE),
        ("last", TIMESTAMP_TYPE),
    ]
)


class Counts:
    """Rows by symbol and exchange of each data file, kept. Any thread may ask."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._kept: dict[str, dict[str, pa.Table]] = {}

    def of(self, view: View) -> pa.Table:
        """Rows, first and last time of each symbol at each exchange in the view, in no order."""
        source = view.source(view.select())
        parts = self._files(view, source)
        if source.partial or source.tail is not None:
            rest = Source(
                columns=source.columns,
                partial=source.partial,
                pin=source.pin,
                tail=source.tail,
            )
            parts.append(self._count(view, rest).select(_COUNTS.names))
        return _summed([part.cast(_COUNTS) for part in parts])

    def _files(self, view: View, source: Source) -> list[pa.Table]:
        """The counts of each whole file, taken from those kept where they are."""
        with self._lock:
            kept = self._kept.get(view.table, {})
        missing = tuple(path for path in source.files if path not in kept)
        if missing:
            named = Source(columns=source.columns, files=missing, named=True, rows=source.rows)
            kept = {**kept, **_by_file(self._count(view, named), missing)}
        if view.pin is None:
            # A file that the newest snapshot does not have is not asked for again.
            kept = {path: kept[path] for path in source.files}
            with self._lock:
                self._kept[view.table] = kept
        return [kept[path] for path in source.files]

    def _count(self, view: View, source: Source) -> pa.Table:
        file = "filename," if source.named else ""
        made = statement("counts", {}, file=file, time=view.time)
        return self._engine.run(made, {"rows": source})


def list_symbols(
    counted: Mapping[str, pa.Table], exchanges: Mapping[str, Exchange], wanted: str | None
) -> pa.Table:
    """Counts of trades and of quotes as one table (see `SYMBOLS`), by exchange and symbol."""
    parts = [_COUNTS.empty_table().append_column("kind", pa.array([], pa.string()))]
    for kind, counts in counted.items():
        parts.append(counts.append_column("kind", pa.array([kind] * counts.num_rows, pa.string())))
    rows = pa.concat_tables(parts)
    for kind in ("trades", "quotes"):
        mine = pc.if_else(pc.equal(rows["kind"], kind), rows["rows"], pa.scalar(0, pa.int64()))
        rows = rows.append_column(kind, mine)
    found = (
        rows.group_by(["symbol", "exchange"])
        .aggregate([("trades", "sum"), ("quotes", "sum"), ("first", "min"), ("last", "max")])
        .sort_by([("exchange", "ascending"), ("symbol", "ascending")])
    )
    if wanted is not None:
        found = found.filter(pc.equal(found["exchange"], wanted))
    names = found["exchange"].to_pylist()
    classes = [exchanges[name].asset_class if name in exchanges else None for name in names]
    columns = [
        found["symbol"],
        found["exchange"],
        pa.array(classes, pa.string()),
        found["trades_sum"],
        found["quotes_sum"],
        found["first_min"],
        found["last_max"],
    ]
    return pa.table(columns, names=SYMBOLS.names).cast(SYMBOLS)


def list_stats(
    views: Mapping[str, View], counted: Mapping[str, pa.Table], lags: Mapping[str, int]
) -> pa.Table:
    """How much each table holds (see `STATS`).

    As of a past moment, `counted` has exact counts of the tables that can be counted; of others,
    files that also hold later rows count whole.
    """
    rows = []
    for kind, view in views.items():
        files = view.select()
        held = sum(file.rows for file in files)
        span = view.span(files)
        if kind in counted:
            held = pc.sum(counted[kind]["rows"]).as_py() or 0
            first, last = (
                pc.min(counted[kind]["first"]).as_py(),
                pc.max(counted[kind]["last"]).as_py(),
            )
            span = (first, last) if held else None
        rows.append(
            {
                "table": kind,
                "rows": held,
                "files": len(files),
                "bytes": sum(file.bytes for file in files),
                "commit": view.pinned.sequence,
                "snapshot_id": _text(view.snapshot_id if view.pin is None else None),
                "committed_at": view.committed_at if view.pin is None and view.sequence else None,
                "first_timestamp": span[0] if span else None,
                "last_timestamp": span[1] if span else None,
                "tail_rows": view.tail.num_rows if view.tail is not None else 0,
                "lag_messages": lags.get(kind),
            }
        )
    return pa.Table.from_pylist(rows, schema=STATS)


def list_snapshots(commits: pa.Table, limit: int) -> pa.Table:
    """The newest commits of a table, newest first (see `SNAPSHOTS`), from its commits ledger."""
    is_tag = pc.equal(commits["operation"], "tag")
    tags: dict[int, list[str]] = {}
    for row in commits.filter(is_tag).select(["commit", "tag"]).to_pylist():
        tags.setdefault(row["commit"], []).append(row["tag"])
    lived = commits.filter(pc.invert(is_tag)).sort_by([("commit", "descending")]).slice(0, limit)
    names = [", ".join(tags.get(commit, [])) or None for commit in lived["commit"].to_pylist()]
    columns = [lived[name].cast(SNAPSHOTS.field(name).type) for name in SNAPSHOTS.names[:-1]]
    return pa.table([*columns, pa.array(names, pa.string())], schema=SNAPSHOTS)


def ledger_statement(name: str, limit: int, wanted: Mapping[str, str]) -> Statement:
    """The newest entries of a ledger, newest first: those that have the `wanted` values in columns
    of these names. Raises `BadInput` for a column that the ledger does not have.
    """
    columns = definition(name).names
    for column in wanted:
        if column not in columns:
            raise BadInput(f"the entries of {name!r} have no {column}", place=column)
    newest = [c for c in ("committed_at", "ingestion_timestamp") if c in columns]
    order = [*(f"{column} desc nulls last" for column in newest)]
    if "log_offset" in columns:
        order += ["log_topic", "log_partition", "log_offset desc"]
    else:
        order += ['"table"', '"commit" desc']
    conditions = [f'"{column}" = $wanted_{column}' for column in wanted]
    return statement(
        "ledger",
        {"row_limit": limit, **{f"wanted_{column}": value for column, value in wanted.items()}},
        order=", ".join(order),
        wanted=" and ".join(conditions) or "true",
    )


def _text(value: int | None) -> str | None:
    return None if value is None else str(value)


def _by_file(counted: pa.Table, paths: tuple[str, ...]) -> dict[str, pa.Table]:
    ordered = counted.sort_by("filename")
    runs = pc.run_end_encode(ordered["filename"].combine_chunks())
    found, start = dict.fromkeys(paths, _COUNTS.empty_table()), 0
    if isinstance(runs, pa.ChunkedArray):
        runs = runs.combine_chunks()
    for path, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
        found[path] = ordered.slice(start, end - start).select(_COUNTS.names).cast(_COUNTS)
        start = end
    return found


def _summed(parts: list[pa.Table]) -> pa.Table:
    joined = pa.concat_tables(parts) if parts else _COUNTS.empty_table()
    summed = joined.group_by(["symbol", "exchange"]).aggregate(
        [("rows", "sum"), ("first", "min"), ("last", "max")]
    )
    return summed.rename_columns(_COUNTS.names).cast(_COUNTS)
