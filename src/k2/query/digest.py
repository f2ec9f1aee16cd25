"""The content's hash: SHA-256 over a form of the rows that nothing but their values shapes.

Comes in: rows in total order, in parts of any size and any encoding. Goes out: a digest, in memory
that does not grow with the rows. `docs/evidence.md` defines the form, byte for byte.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput
from k2.model import plain_type

DEFINITION: Final = 1
"""Version of the form. Old pins and certificates go by it: never change what it means."""

CHUNK_ROWS: Final = 65_536
"""Rows whose columns stand together. It is part of the form."""

_TYPES: Final = {
    pa.bool_(): "bool",
    pa.int32(): "int32",
    pa.int64(): "int64",
    pa.date32(): "date",
    pa.timestamp("us", "UTC"): "timestamp",
    pa.string(): "string",
    pa.binary(): "binary",
    pa.decimal128(18, 8): "decimal(18,8)",
    pa.decimal128(38, 8): "decimal(38,8)",
}
_NAMED: Final = {name: kind for kind, name in _TYPES.items()}

Fields = list[list[str]]


def fields_of(schema: pa.Schema) -> Fields:
    """Name and type of each column, as a pin keeps them.

    Raises `BadInput` for a column that cannot be hashed.
    """
    return [[field.name, _type_name(field)] for field in schema]


def to_schema(fields: Sequence[Sequence[str]]) -> pa.Schema:
    """What `fields_of` told. Raises `BadInput` for what it cannot have told."""
    try:
        return pa.schema([(name, _NAMED[kind]) for name, kind in fields])
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            "these are no columns of a dataset",
            found=str(fields)[:120],
            expected=f"pairs of a name and one of {', '.join(_NAMED)}",
        ) from error


def _type_name(field: pa.Field) -> str:
    if field.name == "commit_sequence":
        raise BadInput(
            "commit_sequence cannot be part of a dataset: compaction writes it out",
            place=field.name,
            hint="leave it out; the commit is pinned besides",
        )
    kind = plain_type(field.type)
    if kind not in _TYPES:
        raise BadInput(f"a column of type {kind} cannot be hashed", place=field.name)
    return _TYPES[kind]


class Digest:
    """The hash of rows that come in parts. One thread at a time."""

    def __init__(self, schema: pa.Schema) -> None:
        """Raises `BadInput` for columns that cannot be hashed."""
        fields = fields_of(schema)
        self.schema = to_schema(fields)
        self.rows = 0
        header = json.dumps({"k2-rows": DEFINITION, "columns": fields}, separators=(",", ":"))
        self._hash = hashlib.sha256(struct.pack("<I", len(header)) + header.encode("ascii"))
        self._waiting = self.schema.empty_table()

    def update(self, part: pa.Table) -> None:
        """More rows, behind those before: columns of these names, others are passed over."""
        part = part.select(self.schema.names).cast(self.schema)
        self.rows += part.num_rows
        joined = pa.concat_tables([self._waiting, part]) if self._waiting.num_rows else part
        whole = joined.num_rows - joined.num_rows % CHUNK_ROWS
        for start in range(0, whole, CHUNK_ROWS):
            _take_chunk(self._hash.update, joined.slice(start, CHUNK_ROWS))
        self._waiting = joined.slice(whole)

    def hexdigest(self) -> str:
        """The hash of all rows so far; more may follow."""
        found = self._hash.copy()
        if self._waiting.num_rows:
            _take_chunk(found.update, self._waiting)
        found.update(struct.pack("<IQ", 0, self.rows))
        return found.hexdigest()


def digest_of(table: pa.Table, names: Sequence[str]) -> Digest:
    """The digest of these columns of the table's rows, in their order."""
    found = Digest(table.select(names).schema)
    found.update(table)
    return found


Take = Callable[[Any], None]


def _take_chunk(take: Take, chunk: pa.Table) -> None:
    take(struct.pack("<I", chunk.num_rows))
    for column in chunk.columns:
        _take_column(take, pa.concat_arrays(column.chunks))


def _take_column(take: Take, column: pa.Array) -> None:
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    take(np.packbits(valid, bitorder="little"))
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        _take_texts(take, _filled(column, "" if pa.types.is_string(kind) else b""))
    elif pa.types.is_decimal(kind):
        _take_decimals(take, _filled(column, Decimal(0)))
    else:
        plain = {"date": pa.int32(), "timestamp": pa.int64(), "bool": pa.uint8()}
        numbers = column.cast(plain.get(_TYPES[kind], kind))
        values = _filled(numbers, 0).to_numpy(zero_copy_only=False)
        take(np.ascontiguousarray(values, values.dtype.newbyteorder("<")))


def _filled(column: pa.Array, value: object) -> pa.Array:
    """The column with that value where it has none: what stands below a null is anybody's."""
    if not column.null_count:
        return column
    return pc.fill_null(column, pa.scalar(value, column.type))


def _take_texts(take: Take, column: pa.Array) -> None:
    """The length of each in bytes, and then all bytes."""
    _, offsets, content = column.buffers()
    if not len(column):
        return
    edges = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1]
    take(np.diff(edges).astype("<u4"))
    if content is not None:
        first, last = int(edges[0]), int(edges[-1])
        take(content.slice(first, last - first))


def _take_decimals(take: Take, column: pa.Array) -> None:
    """The whole number that each is at its scale: 16 bytes, little-endian, two's complement."""
    take(column.buffers()[1].slice(column.offset * 16, len(column) * 16))
