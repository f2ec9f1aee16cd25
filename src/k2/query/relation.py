"""A source as a relation of DuckDB's SQL: files and tail, narrowed, filled up, and corrected.

Comes in: a `Source`. Goes out: SQL that stands behind FROM, its paths bound as parameters and its
small tables registered with the cursor.
"""

from collections.abc import Sequence
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from k2.query.knowledge import KNOWN_AT
from k2.query.port import Pin, Source, Standing

_IN_RANGE: Final = (
    "f.log_topic = r.topic and f.log_id = r.log_id and f.log_partition = r.part "
    "and f.log_offset >= r.first and f.log_offset < r.past"
)

# Files of the first version lack id_space and occurrence: null there. A record with an occurrence
# is known by its content, whatever id it carries, and a correction names its place instead.
_IDENTIFIED: Final = (
    "i.trade_id = case when f.occurrence is null then f.trade_id end "
    "and i.id_space = coalesce(f.id_space, '')"
)
_PLACED: Final = (
    "p.target_log_id = f.log_id and p.target_partition = f.log_partition "
    "and p.target_offset = case when f.occurrence is null and f.trade_id is not null then null "
    "else f.log_offset end"
)


def to_relation(
    cursor: duckdb.DuckDBPyConnection,
    name: str,
    source: Source,
    values: dict[str, Any],
    *,
    template: bool,
    by_name: bool,
) -> str:
    """The source as a relation of SQL: its paths are bound, its tables registered.

    `template` puts a table with all columns beside the files, an empty one if there is no tail;
    `by_name` matches the files' columns by name, which those that lack some need.
    """
    plain: list[str] = []
    rest: list[str] = []
    touched = source.standing.files if source.standing else frozenset()
    options = ", union_by_name = true" if by_name else ""
    options += ", filename = true" if source.named else ""
    for key, parts, paths in (
        ("files", plain, [path for path in source.files if path not in touched]),
        ("touched", rest, [path for path in source.files if path in touched]),
    ):
        if paths:
            values[f"{name}_{key}"] = paths
            parts.append(f"from read_parquet(${name}_{key}{options})")
    if source.partial:
        rest.append(_partial(cursor, name, source, values))
    # What is corrected is read by columns that old files may lack.
    template = template or (source.standing is not None and source.mixed)
    has_tail = source.tail is not None and source.tail.num_rows > 0
    if has_tail or template or not (plain or rest):
        rows = source.tail if has_tail else source.columns.empty_table()
        cursor.register(f"{name}_tail", _complete(rows, source.columns) if template else rows)
        rest.append(_tail(cursor, name, source, is_empty=not has_tail))
    if source.standing is not None and rest:
        rest = [_corrected(cursor, name, source.standing, _union(rest))]
    joined = _union([*plain, *rest])
    if source.known_at is not None:
        values[f"{name}_known_at"] = source.known_at
        joined = f"select * from ({joined}) where {KNOWN_AT} <= ${name}_known_at"
    if not source.defaults or not source.mixed:
        return f"({joined}) as {name}"
    filled = ", ".join(f"coalesce({c}, {to_sql(v)}) as {c}" for c, v in source.defaults.items())
    return f"(select * replace ({filled}) from ({joined})) as {name}"


def _union(parts: Sequence[str]) -> str:
    return " union all by name ".join(parts)


def _corrected(cursor: duckdb.DuckDBPyConnection, name: str, standing: Standing, rows: str) -> str:
    """The rows as corrections left them; or as they came, and beside them what became of each."""
    by_id = standing.table["trade_id"].is_valid()
    cursor.register(f"{name}_by_id", standing.table.filter(by_id))
    cursor.register(f"{name}_by_place", standing.table.filter(pc.invert(by_id)))
    made = {c: f"coalesce(i.{c}, p.{c})" for c in ("action", "timestamp", "price", "quantity")}
    if standing.history:
        columns = (
            f"f.*, {made['action']} as correction, {made['timestamp']} as corrected_at, "
            f"{made['price']} as corrected_price, {made['quantity']} as corrected_quantity"
        )
        stands = "true"
    else:
        columns = (
            f"f.* replace (coalesce({made['price']}, f.price) as price, "
            f"coalesce({made['quantity']}, f.quantity) as quantity)"
        )
        stands = f"coalesce({made['action']}, 'CORRECT') = 'CORRECT'"
    joins = " ".join(
        f"left join {name}_{table} {of} on {of}.symbol = f.symbol and {of}.exchange = f.exchange "
        f"and {of}.exchange_date = f.exchange_date and {on}"
        for table, of, on in (("by_id", "i", _IDENTIFIED), ("by_place", "p", _PLACED))
    )
    return f"select {columns} from ({rows}) f {joins} where {stands}"


def _complete(rows: pa.Table, columns: pa.Schema) -> pa.Table:
    """The rows with every column, null where they had none: a tail has no commit yet."""
    for column in columns:
        if column.name not in rows.schema.names:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    return rows


def _partial(
    cursor: duckdb.DuckDBPyConnection, name: str, source: Source, values: dict[str, Any]
) -> str:
    """The rows of the state in files that hold others too: of later commits, or told before."""
    paths = [file.path for file in source.partial]
    cursor.register(
        f"{name}_partial",
        pa.table({"path": pa.array(paths), "sequence": [file.sequence for file in source.partial]}),
    )
    values[f"{name}_paths"] = paths
    rows = (
        f"select f.* exclude (filename) from read_parquet(${name}_paths, union_by_name = true, "
        f"filename = true) f join {name}_partial p on f.filename = p.path"
    )
    committed = "coalesce(f.commit_sequence, p.sequence)"
    if source.pin is not None:
        cursor.register(f"{name}_ranges", _ranges(source.pin))
        values |= {f"{name}_pin": source.pin.sequence, f"{name}_after": source.pin.after}
        rows += (
            f" left join {name}_ranges r on {_IN_RANGE} "
            f"where ({committed} <= ${name}_pin or r.topic is not null) "
            f"and {committed} > ${name}_after"
        )
    if source.beyond is not None:
        values[f"{name}_beyond"] = source.beyond.sequence
        rows += f" {'where' if source.pin is None else 'and'} {committed} > ${name}_beyond"
    return _beyond(cursor, name, source, rows)


def _tail(cursor: duckdb.DuckDBPyConnection, name: str, source: Source, *, is_empty: bool) -> str:
    """The rows of the tail that are in the state."""
    rows = f"select * from {name}_tail"
    if is_empty:
        return rows
    if source.pin is not None:
        cursor.register(f"{name}_ranges", _ranges(source.pin))
        rows = f"select f.* from {name}_tail f semi join {name}_ranges r on {_IN_RANGE}"
    return _beyond(cursor, name, source, rows)


def _beyond(cursor: duckdb.DuckDBPyConnection, name: str, source: Source, rows: str) -> str:
    """The rows but those that were in the log in the state that they are to be beyond."""
    if source.beyond is None:
        return rows
    cursor.register(f"{name}_told", _ranges(source.beyond))
    return f"select f.* from ({rows}) f anti join {name}_told r on {_IN_RANGE}"


def _ranges(pin: Pin) -> pa.Table:
    return pa.table(
        {
            "topic": pa.array([r.topic for r in pin.ranges], pa.string()),
            "log_id": pa.array([r.log_id for r in pin.ranges], pa.string()),
            "part": pa.array([r.partition for r in pin.ranges], pa.int32()),
            "first": pa.array([r.first for r in pin.ranges], pa.int64()),
            "past": pa.array([r.end for r in pin.ranges], pa.int64()),
        }
    )


def to_sql(value: object) -> str:
    """A value of K2's own as SQL: a default of a schema, a path, a number, a list of these."""
    if isinstance(value, list):
        return f"[{', '.join(to_sql(item) for item in value)}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    text = str(value).replace("'", "''")
    return f"'{text}'"
