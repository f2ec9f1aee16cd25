"""Data files: sorted columns to one durable Parquet file, and what a manifest says of it.

Nothing that these functions return for can be lost: file and folder are on disk.
"""

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet as pq

from k2.errors import BadInput, Unavailable
from k2.lake.manifest import EPOCH
from k2.lake.tables import Definition

ROWS_PER_GROUP: Final = 128 * 1024
# A page in which no row matches is skipped whole. Smaller than usual ones (1 MiB, 20,000 rows) cost
# nothing in size, and 1 % in writing.
_PAGE_BYTES: Final = 32 * 1024
_MICROSECOND: Final = timedelta(microseconds=1)
_DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class WrittenFile:
    """A durable data file that no commit has named yet. `path` is local, `data_file` is Iceberg's
    description of it.
    """

    table: str
    path: str
    rows: int
    bytes: int
    spec_id: int
    data_file: Mapping[str, Any]


def write_parquet(
    path: Path, table: pa.Table, definition: Definition, field_ids: Mapping[str, int]
) -> pq.FileMetaData:
    """Write the rows, as they are ordered, to a new durable file; its footer.

    Dictionary columns become plain text columns of the file, and every column carries Iceberg's
    field id. Raises `BadInput` for other columns than the table's, `Unavailable` when the disk is
    full: then no part of the file stays.
    """
    schema = file_schema(definition, field_ids)
    shaped = _shape(table, schema, definition)
    with _or_nothing(path):
        with open(path, "xb") as file:
            pq.write_table(
                shaped,
                file,
                row_group_size=ROWS_PER_GROUP,
                data_page_size=_PAGE_BYTES,
                version="2.6",
                compression="zstd",
                compression_level=1,
                use_dictionary=list(definition.dictionary),
                column_encoding=definition.encodings,
                store_decimal_as_integer=True,
                write_statistics=list(definition.statistics),
                write_page_index=True,
                store_schema=False,
            )
        sync([path, path.parent])
        # Read back (0.3 ms): pyarrow's own collector of footers hides the error of a full disk
        # behind one of its own.
        return pq.read_metadata(path)


def file_schema(definition: Definition, field_ids: Mapping[str, int]) -> pa.Schema:
    """The Arrow schema of a file: `definition.arrow` with Iceberg's field ids."""
    return pa.schema(
        [
            field.with_metadata({"PARQUET:field_id": str(field_ids[field.name])})
            for field in definition.arrow
        ]
    )


def _shape(table: pa.Table, schema: pa.Schema, definition: Definition) -> pa.Table:
    if table.schema.names != schema.names:
        missing = [n for n in schema.names if n not in table.schema.names]
        more = [n for n in table.schema.names if n not in schema.names]
        if missing or more:
            raise BadInput(
                "these are not the columns of the table",
                place=definition.name,
                found=f"without {missing}, with {more}",
                expected=", ".join(schema.names),
            )
        table = table.select(schema.names)
    for field, column in zip(schema, table.columns, strict=True):
        if column.null_count and not field.nullable:
            raise BadInput(f"column {field.name} must have a value in every row")
    return table.cast(schema)


@contextmanager
def _or_nothing(path: Path) -> Iterator[None]:
    """Leave no half-written file behind, and say what a failing disk means."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, OSError):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path, error: OSError) -> Unavailable:
    """The disk's refusal, as what it means to the reader."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(
            "no space is left on the disk",
            place=str(path.parent),
            hint="make room; nothing is lost, the writer goes on where it was",
            retry_after=10.0,
        )
    return Unavailable(f"cannot write: {error.strerror or error}", place=str(path), retry_after=1.0)


def write_new(path: Path, content: bytes | pa.Buffer) -> None:
    """A new file with this content; `sync` makes it durable, with its folder.

    Raises `Unavailable` when it cannot be written; then no part of it stays.
    """
    with _or_nothing(path), open(path, "xb") as file:
        file.write(content)


def replace_file(path: Path, content: bytes | pa.Buffer, unique: UUID) -> None:
    """A file with this content, in place of what the path had: whole, or as it was. Not durable: a
    crash may bring back the old one. Raises as `write_new`.
    """
    part = path.with_suffix(f".{unique}.part")
    write_new(part, content)
    with _or_nothing(part):
        part.replace(path)


def sync(paths: Sequence[Path]) -> None:
    """Make files durable, and the names in folders. Raises `Unavailable` when the disk fails."""
    # All at once: the file system then writes its journal once, not once for each (1.7 against
    # 10.6 ms for four).
    with ThreadPoolExecutor(len(paths)) as threads:
        for path, error in zip(paths, threads.map(_sync, paths), strict=True):
            if error is not None:
                raise unwritable(path, error)


def _sync(path: Path) -> OSError | None:
    try:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        return error
    return None


def delete(paths: Iterable[str]) -> None:
    """Delete local files; one that is gone already, or cannot go, is no error."""
    for path in paths:
        with suppress(OSError):
            os.unlink(path)


def describe(
    uri: str,
    size_bytes: int,
    footer: pq.FileMetaData,
    definition: Definition,
    field_ids: Mapping[str, int],
    partition: Mapping[str, int],
) -> dict[str, Any]:
    """Iceberg's description of a Parquet file, from its footer."""
    nulls, counts, lower, upper = [], [], [], []
    columns = {c.name: c for c in definition.columns}
    position = {footer.schema.column(i).path: i for i in range(footer.num_columns)}
    for name in definition.bounded:
        if name not in position:
            continue
        column, key = columns[name], field_ids[name]
        statistics = [
            footer.row_group(g).column(position[name]).statistics
            for g in range(footer.num_row_groups)
        ]
        if any(s is None or not s.has_null_count for s in statistics):
            continue
        if not column.required:
            counts.append({"key": key, "value": footer.num_rows})
            nulls.append({"key": key, "value": sum(s.null_count for s in statistics)})
        valued = [s for s in statistics if s.num_values]
        if valued and all(s.has_min_max for s in valued):
            least, greatest = min(s.min for s in valued), max(s.max for s in valued)
            lower.append({"key": key, "value": to_bound(least, column.arrow)})
            upper.append({"key": key, "value": to_bound(greatest, column.arrow)})
    return {
        "content": 0,
        "file_path": uri,
        "file_format": "PARQUET",
        "partition": dict(partition),
        "record_count": footer.num_rows,
        "file_size_in_bytes": size_bytes,
        "value_counts": counts,
        "null_value_counts": nulls,
        "lower_bounds": lower,
        "upper_bounds": upper,
        "split_offsets": [
            footer.row_group(g).column(0).dictionary_page_offset
            or footer.row_group(g).column(0).data_page_offset
            for g in range(footer.num_row_groups)
        ],
        "sort_order_id": 1 if definition.order else 0,
    }


def to_bound(value: Any, kind: pa.DataType) -> bytes:
    """A value as Iceberg writes bounds: little-endian numbers, UTF-8 text, big-endian decimals."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, datetime):
        return _little((value - _DAWN) // _MICROSECOND, 8)
    if isinstance(value, date):
        return _little((value - EPOCH).days, 4)
    if isinstance(value, Decimal):
        unscaled = int(value.scaleb(kind.scale))
        return unscaled.to_bytes((unscaled.bit_length() + 8) // 8, "big", signed=True)
    return _little(value, kind.bit_width // 8)


def _little(value: int, width: int) -> bytes:
    return value.to_bytes(width, "little", signed=True)
