"""High-water marks: the greatest id, or the latest time, that the table holds of each group.

Comes in: a snapshot. Goes out: for each (exchange, symbol, id space) the greatest numeric id, for
each (exchange, symbol) whose records have no ids the latest timestamp, and the hashes of ids that
are no numbers. Kept beside the table now and then.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from k2.errors import Broken
from k2.ingest.hashed import HashedIds, Hashes, hashes_of
from k2.ingest.kept import Kept
from k2.lake import LakeTable, Snapshot
from k2.model import micros

Name: TypeAlias = tuple[str, ...]
"""`("id", exchange, symbol, id space)` or `("content", exchange, symbol)`."""

ID_COLUMN: Final = {
    "trades": "trade_id",
    "quotes": "source_sequence",
    "corrections": "source_sequence",
}
"""The column that holds a record's id, for kinds that have one."""

_ENCODED: Final = pa.dictionary(pa.int32(), pa.string())
NO_MARK: Final = np.iinfo(np.int64).min
_SYMBOL: Final = ("exchange", "symbol")
_PLACE: Final = ("log_topic", "log_partition", "log_offset")
_COMMIT: Final = "commit_sequence"
_DIGITS_MAX: Final = 18
_FILES_AT_ONCE: Final = 64
_ROWS_AT_ONCE: Final = 1 << 20
_YOUNG_SECONDS: Final = 60
_SCHEMA: Final = pa.schema(
    [
        ("way", pa.string()),
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        ("id_space", pa.string()),
        ("number", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Marks:
    """What a table holds, or less: the greatest number of each name, and ids that are none."""

    numbers: dict[Name, int]
    ids: HashedIds

    @classmethod
    def of_nothing(cls, table: LakeTable) -> "Marks":
        """The marks of an empty table."""
        return cls({}, HashedIds(_beside(table).folder))


def read_marks(table: LakeTable, snapshot: Snapshot, kind: str) -> Marks:
    """The marks of everything that the snapshot holds."""
    since, marks = _kept(table, snapshot)
    raise_marks(marks, [f.path for f in snapshot.files.since(since)], kind, since)
    return marks


def raise_marks(marks: Marks, files: Sequence[str], kind: str, since: int) -> None:
    """Have the marks cover the rows of these files that commits after `since` brought in."""
    for first in range(0, len(files), _FILES_AT_ONCE):
        with reading_files():
            for rows in _rows_of(files[first : first + _FILES_AT_ONCE], kind, since):
                found, hashes = _marks_of(rows, kind)
                marks.ids.add(hashes)
                for name, number in found:
                    marks.numbers[name] = max(marks.numbers.get(name, NO_MARK), number)


def brought_after(commit: int) -> pc.Expression:
    """Of a file that the index tells to have such rows: those that later commits brought in."""
    of = pc.field(_COMMIT)
    return of.is_null() | (of > commit)


@contextmanager
def reading_files() -> Iterator[None]:
    """Say what it means that a data file is gone or damaged: raises `Broken`."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise Broken(
            f"a data file of the table cannot be read: {error}",
            hint="`k2 audit` names it, and `k2 rebuild` makes its rows again from the log",
        ) from error


def symbols_in(
    files: Sequence[str], since: int, decided: Mapping[tuple[str, int], int] | None = None
) -> set[tuple[str, str]]:
    """Every (exchange, symbol) of which these files have rows that commits after `since` brought
    in; "" for what a row does not have.

    `decided`: by (topic, partition) the offset before which rows are left out.
    """
    if not files:
        return set()
    with reading_files():
        schema = _union(files, [*_SYMBOL, *_PLACE, _COMMIT])
        condition = brought_after(since) if _COMMIT in schema.names else None
        columns = [name for name in (*_SYMBOL, *_PLACE) if name in schema.names]
        texts = [name for name in schema.names if pa.types.is_string(schema.field(name).type)]
        for at, field in enumerate(schema):
            if field.name in texts:
                schema = schema.set(at, field.with_type(_ENCODED))
        form = ds.ParquetFileFormat(dictionary_columns=texts)
        found = ds.dataset(list(files), schema=schema, format=form)
        rows = found.to_table(columns=columns, filter=condition)
    partition, offset = (rows[name].to_numpy() for name in ("log_partition", "log_offset"))
    keep = np.ones(rows.num_rows, np.bool_)
    for (topic, number), limit in (decided or {}).items():
        before = (partition == number) & (offset < limit)
        if before.any():
            keep &= ~(before & pc.equal(rows["log_topic"], topic).to_numpy())
    return symbols_of(rows if keep.all() else rows.filter(pa.array(keep)))


def symbols_of(rows: pa.Table) -> set[tuple[str, str]]:
    """Every (exchange, symbol) of the rows: dictionary columns, which may lack either."""
    found: set[tuple[str, str]] = set()
    for batch in rows.select([n for n in _SYMBOL if n in rows.column_names]).to_batches():
        codes = np.zeros(batch.num_rows, np.int64)
        names: list[tuple[str, ...]] = [()]
        for name in _SYMBOL:
            if name not in batch.schema.names:
                names = [(*known, "") for known in names]
                continue
            values = [*batch[name].dictionary.to_pylist(), ""]
            indices = pc.fill_null(batch[name].indices, len(values) - 1).to_numpy()
            codes = codes * len(values) + indices
            names = [(*known, value) for known in names for value in values]
        found |= {(names[code][0], names[code][1]) for code in np.unique(codes).tolist()}
    return found


def save_marks(table: LakeTable, sequence: int, marks: Marks) -> None:
    """Keep marks that cover the table up to the commit `sequence` (they may be too high, never
    too low).
    """
    padded = [
        (*name, *[""] * (4 - len(name)), number) for name, number in dict(marks.numbers).items()
    ]
    columns = zip(*padded, strict=True) if padded else [[] for _ in _SCHEMA]
    found = pa.table([list(c) for c in columns], schema=_SCHEMA)
    beside = _beside(table)
    beside.folder.mkdir(exist_ok=True)
    found = found.replace_schema_metadata({"ids": json.dumps(marks.ids.keep())})
    buffer = pa.BufferOutputStream()
    pq.write_table(found, buffer)
    states = beside.keep(sequence, buffer.getvalue().to_pybytes())
    _clear(beside.folder, states)


def _clear(folder: Path, states: Sequence[Path]) -> None:
    """Remove hashes that no state names; what is young may be named soon."""
    runs = [p for p in folder.glob("*.npy") if time.time() - _written_at(p) > _YOUNG_SECONDS]
    if runs:
        named: set[str] = set()
        for state in states:
            with suppress(OSError, pa.ArrowException):
                named |= _ids_of(pq.read_schema(state)).keys()
        for run in runs:
            if run.name not in named:
                run.unlink(missing_ok=True)


def _written_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return time.time()


def _ids_of(schema: pa.Schema) -> dict[str, int]:
    found: dict[str, int] = json.loads(schema.metadata[b"ids"])
    return found


def to_numbers(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Ids as numbers, and which of them are: at most 18 digits (`007` counts as 7)."""
    if pa.types.is_integer(column.type):
        return pc.fill_null(column, 0).to_numpy(), column.is_valid().to_numpy()
    # Judged row by row: a verdict that hung on the neighbours would differ from batch to batch.
    short = pc.less_equal(pc.binary_length(column), _DIGITS_MAX)
    numeric = pc.fill_null(pc.and_(pc.ascii_is_decimal(column), short), False)
    if not pc.all(numeric).as_py():
        column = pc.if_else(numeric, column, "0")
    return column.cast(pa.int64()).to_numpy(), numeric.to_numpy()


def _beside(table: LakeTable) -> Kept:
    return Kept(table, "marks")


def _kept(table: LakeTable, snapshot: Snapshot) -> tuple[int, Marks]:
    """The newest marks kept that are not ahead of the snapshot, and the commit they cover."""
    beside = _beside(table)
    for sequence, state in beside.newest(snapshot):
        with suppress(OSError, ValueError, pa.ArrowException):
            found = pq.read_table(pa.BufferReader(state))
            ids = HashedIds.kept(beside.folder, _ids_of(found.schema))
            rows = zip(*(c.to_pylist() for c in found.columns), strict=True)
            numbers = {
                (way, exchange, symbol, *([space] if way == "id" else [])): number
                for way, exchange, symbol, space, number in rows
            }
            return sequence, Marks(numbers, ids)
    return 0, Marks.of_nothing(table)


def _rows_of(paths: Sequence[str], kind: str, since: int) -> Iterator[pa.Table]:
    """What the marks of some files are made of, some rows at a time."""
    names = ds.dataset(list(paths), format="parquet").schema.names
    wanted = ["exchange", "symbol", "id_space", "occurrence", "timestamp", ID_COLUMN.get(kind)]
    columns = [c for c in wanted if c is not None and c in names]
    schema = _union(paths, [*columns, _COMMIT])
    condition = brought_after(since) if _COMMIT in schema.names else None
    found = ds.dataset(list(paths), schema=schema, format="parquet")
    held: list[pa.RecordBatch] = []
    for batch in found.to_batches(columns=columns, filter=condition):
        held.append(batch)
        if sum(each.num_rows for each in held) >= _ROWS_AT_ONCE:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _marks_of(found: pa.Table, kind: str) -> tuple[list[tuple[Name, int]], Hashes]:
    """The marks of some rows, one a group and not one a record; ids that are no numbers."""
    columns, id_column = found.column_names, ID_COLUMN.get(kind)
    symbols = pa.repeat("", found.num_rows)
    if "symbol" in columns:
        # Null in a ledger, for what has none: it is called as where there is no such column.
        symbols = pc.fill_null(found["symbol"], "")
        found = found.drop_columns("symbol")
    found = found.append_column("symbol", symbols)
    by_content = found
    marks: list[tuple[Name, int]] = []
    hashes = np.zeros(0, np.uint64)
    if "occurrence" in columns and id_column is not None and id_column in columns:
        by_content = found.filter(found["occurrence"].is_valid())
        by_id = found.filter(pc.and_(found["occurrence"].is_null(), found[id_column].is_valid()))
        numbers, numeric = to_numbers(by_id[id_column])
        groups = ("exchange", "symbol", "id_space")
        marks += _greatest("id", by_id, groups, numbers, numeric)
        if not numeric.all():
            hashes = hashes_of(by_id.filter(pa.array(~numeric)), id_column)
    every = np.ones(by_content.num_rows, np.bool_)
    times = (
        micros(by_content["timestamp"])
        if "timestamp" in columns
        else np.zeros(by_content.num_rows, np.int64)
    )
    return marks + _greatest("content", by_content, ("exchange", "symbol"), times, every), hashes


def _greatest(
    way: str,
    rows: pa.Table,
    groups: Sequence[str],
    numbers: npt.NDArray[np.int64],
    counted: npt.NDArray[np.bool_],
) -> list[tuple[Name, int]]:
    keyed = rows.select(list(groups)).append_column("number", pa.array(numbers))
    highest = keyed.filter(pa.array(counted)).group_by(list(groups)).aggregate([("number", "max")])
    columns = [highest[c].to_pylist() for c in (*groups, "number_max")]
    return [((way, *name), number) for *name, number in zip(*columns, strict=True)]


def _union(paths: Sequence[str], columns: Sequence[str]) -> pa.Schema:
    """The columns' types, from whichever file has each: older files lack the newer columns."""
    found: dict[str, pa.Field] = {}
    for path in paths:
        for field in pq.read_schema(path):
            if field.name in columns:
                found.setdefault(field.name, field.remove_metadata())
    return pa.schema([found[c] for c in columns])
