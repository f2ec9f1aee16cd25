"""A decoded copy of one data file: its rows as Arrow keeps them, in a file mapped into memory.

Comes in: a data file, which never changes. Goes out: the same rows in the same order, of which a
symbol's between two times are found by bisection and are there without being read. A copy is
named after its data file, its own length and its checksum: a torn one is never opened.
"""

import json
import os
import zlib
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from k2.lake import DataFileRef
from k2.model import micros, plain_type

ENDING: Final = ".arrow"
PART: Final = ".part"
"""How names of copies end, and of those that are being written."""

_META: Final = b"k2.copy"
_BLOCK: Final = 1 << 20
_SMALL_CODES: Final = ((1 << 7, pa.int8()), (1 << 15, pa.int16()))

Longs = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shape:
    """What the rows of a kind have: `columns`, a `time`, the columns of their total `order`, and
    the `defaults` of columns that files of an earlier version lack.
    """

    columns: pa.Schema
    time: str
    order: tuple[str, ...]
    defaults: Mapping[str, object]


@dataclass(frozen=True)
class Copy:
    """A copy that is open. Its rows stand by symbol and time; where it is `ordered`, those of each
    symbol stand in total order. `bytes` is its length on disk.
    """

    path: str
    table: pa.Table
    bytes: int
    ordered: bool
    time: str
    runs: Mapping[str, tuple[int, int]]

    @cached_property
    def exchanges(self) -> frozenset[str]:
        """The exchanges that its rows are of."""
        return frozenset(self._dictionary("exchange"))

    def span(self, symbol: str, start: int | None, end: int | None) -> tuple[int, int]:
        """The rows `[begin, end)` of a symbol at times `[start, end)`; None is open."""
        first, last = self.runs.get(symbol, (0, 0))
        low = first if start is None else first + self._place(first, last, start)
        high = last if end is None else first + self._place(first, last, end)
        return low, max(low, high)

    def times(self, begin: int, end: int) -> Longs:
        """Times of these rows, microseconds."""
        return micros(self.table[self.time].slice(begin, end - begin))

    def rows(self, begin: int, end: int, names: Sequence[str]) -> pa.Table:
        """These columns of these rows, without dictionaries."""
        count = end - begin
        found = []
        for name in names:
            alike = self._alike.get(name)
            if alike is not None:
                found.append(pa.repeat(alike, count))
                continue
            column = self.table[name].slice(begin, count)
            coded = pa.types.is_dictionary(column.type)
            found.append(column.cast(column.type.value_type) if coded else column)
        return pa.table(found, names=list(names))

    def _place(self, first: int, last: int, when: int) -> int:
        return bisect_left(range(first, last), when, key=self._time_at)

    def _time_at(self, row: int) -> int:
        at = int(np.searchsorted(self._starts, row, side="right")) - 1
        return int(self._chunks[at][row - int(self._starts[at])])

    @cached_property
    def _chunks(self) -> list[Longs]:
        return [micros(chunk) for chunk in self.table[self.time].chunks]

    @cached_property
    def _starts(self) -> Longs:
        return np.cumsum([0, *map(len, self._chunks[:-1])])

    @cached_property
    def _alike(self) -> dict[str, pa.Scalar]:
        """The columns of which every row has the same value: filling is quicker than decoding."""
        found = {}
        for field in self.table.schema:
            column = self.table[field.name]
            kind = plain_type(field.type)
            if column.null_count == len(column):
                found[field.name] = pa.scalar(None, kind)
            elif pa.types.is_dictionary(field.type) and not column.null_count:
                values = self._dictionary(field.name)
                if len(values) == 1:
                    found[field.name] = pa.scalar(values[0], kind)
        return found

    def _dictionary(self, name: str) -> list[str]:
        return self.table[name].chunk(0).dictionary.to_pylist()


def write_copy(
    folder: Path,
    file: DataFileRef,
    shape: Shape,
    unique: UUID,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Path | None:
    """Write the copy of a data file, whole, under its name in the folder.

    None where there can be no such copy: the rows do not stand by symbol and time, or lack values
    that a question might fill in; or where it may not go on. Raises `OSError` and what pyarrow
    raises for a file that is damaged; no part of a copy stays then.
    """
    part = folder / f"{Path(file.path).stem}.{unique.hex}{PART}"
    try:
        metadata = pq.read_metadata(file.path)
        texts = [name for name in _texts(shape.columns) if name in metadata.schema.names]
        with pq.ParquetFile(file.path, metadata=metadata, read_dictionary=texts) as parquet:
            made = _survey(parquet, shape, may_go_on)
            if made is None or not _write(part, parquet, file, made, shape, may_go_on):
                return None
        path = folder / f"{Path(file.path).stem}.{part.stat().st_size}.{checksum(part):08x}{ENDING}"
        # Not synced: whoever finds a copy of before reads it through, and one that was torn when
        # the machine went down has another checksum.
        part.rename(path)
        return path
    finally:
        part.unlink(missing_ok=True)


def checksum(path: Path) -> int:
    """CRC-32 of a file's content."""
    found = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return found


def is_intact(path: Path) -> bool:
    """Whether the file is as long as its name says, and has the checksum that it says."""
    match path.name.split("."):
        case [_, size, crc, "arrow"] if size.isdecimal():
            return path.stat().st_size == int(size) and f"{checksum(path):08x}" == crc
    return False


def open_copy(path: Path) -> Copy | None:
    """An intact copy, mapped; None where it is not of the data file that it names, as that is now,
    or that file is gone.

    Raises what pyarrow raises for a file that is none.
    """
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
    meta: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_META, b"{}"))
    try:
        if os.stat(meta["path"]).st_size != meta["bytes"] or meta["rows"] != table.num_rows:
            return None
        borders = [first for _, first in meta["symbols"]] + [table.num_rows]
        runs = {
            symbol: (first, end)
            for (symbol, first), end in zip(meta["symbols"], borders[1:], strict=True)
        }
        return Copy(meta["path"], table, path.stat().st_size, meta["ordered"], meta["time"], runs)
    except (KeyError, FileNotFoundError):
        return None


@dataclass(frozen=True)
class _Survey:
    """What there is in a file: the values of each column of few texts, where each symbol's rows
    begin, whether each symbol's stand in total order.
    """

    values: Mapping[str, list[str]]
    symbols: list[tuple[str, int]]
    ordered: bool


def _texts(columns: pa.Schema) -> list[str]:
    return [field.name for field in columns if pa.types.is_dictionary(field.type)]


def _survey(parquet: pq.ParquetFile, shape: Shape, may_go_on: Callable[[], bool]) -> _Survey | None:
    """What there is in the file; None where no copy can be made of it."""
    there = set(parquet.schema_arrow.names)
    coded = [name for name in _texts(shape.columns) if name in there]
    needed = dict.fromkeys(["symbol", *shape.order])
    if not there.issuperset(["exchange", *needed]) or not parquet.metadata.num_rows:
        return None
    read = [
        name for name in shape.columns.names
        if name in there and (name in coded or name in needed or name in shape.defaults)
    ]  # fmt: skip
    groups = range(parquet.metadata.num_row_groups)
    values: dict[str, dict[str, None]] = {name: {} for name in coded}
    keys: list[list[npt.NDArray[Any]]] = []
    for number in groups:
        if not may_go_on():
            return None
        group = parquet.read_row_group(number, columns=read, use_threads=False)
        if any(group[name].null_count for name in (*needed, *(there & shape.defaults.keys()))):
            return None
        for name in coded:
            for chunk in group[name].chunks:
                values[name].update(dict.fromkeys(chunk.dictionary.to_pylist()))
        keys.append([_key(group[name], values.get(name, {})) for name in needed])
    joined = [np.concatenate(parts) for parts in zip(*keys, strict=True)]
    # By their place among the values so far; now that all of these are known, by their order.
    for at, name in enumerate(needed):
        if name in values:
            joined[at] = _ranks(list(values[name]))[joined[at]]
    wrong = _first_wrong(joined)
    if wrong is not None and wrong < 2:
        return None
    ordered = sorted(values["symbol"], key=str.encode)
    begins = [0, *(np.flatnonzero(np.diff(joined[0])) + 1).tolist()]
    symbols = [(ordered[joined[0][row]], row) for row in begins]
    return _Survey({name: list(of) for name, of in values.items()}, symbols, wrong is None)


def _key(column: pa.ChunkedArray, values: Mapping[str, None]) -> npt.NDArray[Any]:
    """A column of the order as numbers: of text, its place among `values`."""
    if pa.types.is_dictionary(column.type):
        places = {value: at for at, value in enumerate(values)}
        return np.concatenate([_codes(chunk, places).to_numpy() for chunk in column.chunks])
    return micros(column) if pa.types.is_timestamp(column.type) else column.to_numpy()


def _codes(chunk: pa.DictionaryArray, places: Mapping[str, int]) -> pa.Array:
    """The chunk's codes, as places among all values; null stays null."""
    moved = pa.array([places[value] for value in chunk.dictionary.to_pylist()], pa.int32())
    return moved.take(chunk.indices)


def _ranks(values: Sequence[str]) -> npt.NDArray[np.int64]:
    """The rank of each value, by its UTF-8 bytes."""
    places = {value: at for at, value in enumerate(sorted(values, key=str.encode))}
    return np.fromiter((places[value] for value in values), np.int64, len(values))


def _first_wrong(keys: Sequence[npt.NDArray[Any]]) -> int | None:
    """The first of these keys by which some row comes before the one in front of it, all keys
    before it being alike; None: none does.
    """
    pairs = np.arange(1, len(keys[0]))
    for number, key in enumerate(keys):
        before, after = key[pairs - 1], key[pairs]
        if (after < before).any():
            return number
        pairs = pairs[after == before]
    return None


def _write(
    part: Path,
    parquet: pq.ParquetFile,
    file: DataFileRef,
    made: _Survey,
    shape: Shape,
    may_go_on: Callable[[], bool],
) -> bool:
    """Write the copy, a batch for each row group; whether it is whole."""
    meta = {
        "path": file.path,
        "bytes": file.bytes,
        "rows": parquet.metadata.num_rows,
        "sequence": file.sequence,
        "ordered": made.ordered,
        "time": shape.time,
        "symbols": made.symbols,
    }
    dictionaries = {name: pa.array(values, pa.string()) for name, values in made.values.items()}
    places = {name: {v: at for at, v in enumerate(of)} for name, of in made.values.items()}
    schema = _schema(shape, dictionaries).with_metadata({_META: json.dumps(meta).encode()})
    there = [name for name in shape.columns.names if name in parquet.schema_arrow.names]
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for number in range(parquet.metadata.num_row_groups):
            if not may_go_on():
                return False
            group = parquet.read_row_group(number, columns=there, use_threads=False)
            columns = []
            for field in schema:
                if field.name in dictionaries:
                    column = group[field.name]
                    chunks = [_codes(chunk, places[field.name]) for chunk in column.chunks]
                    codes = pa.chunked_array(chunks).combine_chunks().cast(field.type.index_type)
                    of = dictionaries[field.name]
                    columns.append(pa.DictionaryArray.from_arrays(codes, of))
                elif field.name in there:
                    columns.append(group[field.name].cast(field.type).combine_chunks())
                else:
                    value = pa.scalar(shape.defaults.get(field.name), field.type)
                    columns.append(pa.repeat(value, group.num_rows))
            writer.write_batch(pa.record_batch(columns, schema=schema))
    return True


def _schema(shape: Shape, dictionaries: Mapping[str, pa.Array]) -> pa.Schema:
    """The columns as the copy has them: codes no wider than needed, text without codes plain."""
    fields = []
    for field in shape.columns:
        kind = plain_type(field.type)
        if field.name in dictionaries:
            kind = pa.dictionary(_width(len(dictionaries[field.name])), pa.string())
        fields.append(pa.field(field.name, kind))
    return pa.schema(fields)


def _width(count: int) -> pa.DataType:
    return next((kind for most, kind in _SMALL_CODES if count < most), pa.int32())
