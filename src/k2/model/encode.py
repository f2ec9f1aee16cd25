"""Columns to Avro messages: all rows at once, field by field, never one by one.

Each field of all rows is made to words, which go to the rows' slots (`slots.py`). The bytes are
those that any Avro library writes: canonical varints, fixed decimals.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.errors import BadInput, Refused
from k2.model.plan import Field, fields_of
from k2.model.schema import Schema
from k2.model.slots import Codes, Row
from k2.model.words import (
    WINDOW_BYTES,
    Ints,
    Mask,
    U,
    Words,
    anywhere,
    pack_varints,
    varint,
    zigzag,
)

_PART_ROWS: Final = 1 << 15
"""Rows encoded at once: 0.19 us each; 0.26 at twice as many (out of the cache), 0.23 at half."""
_PART_BYTES: Final = 1 << 30
_SLOT_TEXT: Final = 63
"""Longer texts do not go through the slots (one pass a word): they are joined to the rest."""
_INT32_BYTES: Final = (1 << 31) - 1


def encode(table: pa.Table, schema: Schema) -> pa.BinaryArray:
    """Encode each row as one Avro datum of `schema`, without any wire header.

    Columns are found by name and may be of any type that casts to the schema's without loss;
    those that the schema lacks are ignored. The array is `large_binary` past 2 GiB. Raises
    `BadInput`, naming the column, for one that is missing, of another type, null where it may not
    be, or an enum with an unknown symbol.
    """
    fields = fields_of(schema.avro)
    names = set(table.column_names)
    columns = [
        _column(table, names, field, kind)
        for field, kind in zip(fields, schema.arrow.types, strict=True)
    ]
    if table.num_rows == 0:
        return pa.array([], pa.binary())
    parts = _encode(columns, 0, table.num_rows, fields)
    if len(parts) == 1:
        return parts[0]
    if sum(part.nbytes for part in parts) > _INT32_BYTES:
        parts = [part.cast(pa.large_binary()) for part in parts]
    return pa.concat_arrays(parts)


def _column(table: pa.Table, names: set[str], field: Field, kind: pa.DataType) -> pa.ChunkedArray:
    if field.form == "decimal" and field.size != 8:
        raise Refused(f"field {field.name!r} cannot be written", expected="a decimal in fixed(8)")
    if field.name not in names:
        raise BadInput(f"there is no column {field.name!r}", expected=str(kind))
    column = table.column(field.name)
    if column.type != kind:
        try:
            column = column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(
                f"column {field.name!r} has another type",
                found=str(column.type),
                expected=str(kind),
            ) from error
    if field.null_branch is None and column.null_count:
        raise BadInput(f"column {field.name!r} has {column.null_count} nulls, and may have none")
    return column


def _encode(
    columns: list[pa.ChunkedArray], start: int, stop: int, fields: tuple[Field, ...]
) -> list[pa.Array]:
    """Rows `start` to `stop` (exclusive), in parts that the buffers can address."""
    arrays = [_slice(column, start, stop) for column in columns]
    count = stop - start
    large = count > 1 and sum(a.get_total_buffer_size() for a in arrays) > _PART_BYTES
    if count > _PART_ROWS or (large and sum(a.nbytes for a in arrays) > _PART_BYTES):
        middle = start + min(_PART_ROWS, (count + 1) // 2)
        return [
            *_encode(columns, start, middle, fields),
            *_encode(columns, middle, stop, fields),
        ]
    row = Row(count)
    for field, array in zip(fields, arrays, strict=True):
        _WRITERS[field.form](row, field, array)
    return [row.joined()]


def _slice(column: pa.ChunkedArray, start: int, stop: int) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0).slice(start, stop - start)
    part = column.slice(start, stop - start)
    return pa.concat_arrays(part.chunks)


# --- one writer a form


def _branches(field: Field) -> tuple[bytes, bytes]:
    """The union's number of null and of a value, encoded; both empty where there is no union."""
    if field.null_branch is None:
        return b"", b""
    return bytes([2 * field.null_branch]), bytes([2 - 2 * field.null_branch])


def _present(row: Row, field: Field, column: pa.Array) -> tuple[bool, Mask | None]:
    """Whether there is any value, and which rows have one (None: all); writes all-null columns."""
    if column.null_count == 0:
        return True, None
    if column.null_count == len(column):
        row.coded([_branches(field)[0]])
        return False, None
    return True, column.is_valid().to_numpy(zero_copy_only=False)


def _write_words(
    row: Row, field: Field, present: Mask | None, packed: tuple[list[Words], Ints | int, int]
) -> None:
    """A value's words, their sizes and the most of these, behind the union's branch if any."""
    words, size, most = packed
    null, value = _branches(field)
    if value and most <= 7:
        words, size, most = [(words[0] << U(8)) | U(value[0])], size + 1, most + 1
        if present is not None:
            words, size = [np.where(present, words[0], U(null[0]))], np.where(present, size, 1)
    elif present is not None:
        row.coded([null, value], present.view(np.uint8))
        size = np.where(present, size, 0)
    elif value:
        row.coded([value])
    row.placed(words, size, most)


def _numbers(column: pa.Array, kind: str) -> npt.NDArray[Any]:
    found = np.frombuffer(column.buffers()[1], kind)
    return found[column.offset : column.offset + len(column)]


def _write_number(row: Row, field: Field, column: pa.Array) -> None:
    some, present = _present(row, field, column)
    if not some:
        return
    numbers = _numbers(column, "<i4" if field.form == "int" else "<i8").astype(np.int64)
    if present is not None:
        numbers = np.where(present, numbers, 0)
    coded = zigzag(numbers)
    low, high = int(coded.min()), int(coded.max())
    if low == high and present is None:
        row.coded([_branches(field)[1] + varint(low)])
    else:
        _write_words(row, field, present, pack_varints(coded, low, high))


def _write_decimal(row: Row, field: Field, column: pa.Array) -> None:
    some, present = _present(row, field, column)
    if not some:
        return
    halves = np.frombuffer(column.buffers()[1], "<u8")
    low = halves[2 * column.offset : 2 * (column.offset + len(column)) : 2]
    _write_words(row, field, present, ([low.byteswap()], 8, 8))


def _write_boolean(row: Row, field: Field, column: pa.Array) -> None:
    null, value = _branches(field)
    some, present = _present(row, field, column)
    if not some:
        return
    codes = column.cast(pa.uint8()).fill_null(2).to_numpy()
    if present is None and (codes == codes[0]).all():
        row.coded([value + bytes([codes[0]])])
    else:
        row.coded([value + b"\0", value + b"\1", null], codes)


def _write_text(row: Row, field: Field, column: pa.Array) -> None:
    if pa.types.is_dictionary(column.type):
        _write_dictionary(row, field, column, _text)
        return
    some, present = _present(row, field, column)
    if not some:
        return
    _, offsets_buffer, content = column.buffers()
    offsets = np.frombuffer(offsets_buffer, "<i4")
    offsets = offsets[column.offset : column.offset + len(column) + 1].astype(np.int64)
    sizes = np.diff(offsets)
    if present is not None:
        sizes = np.where(present, sizes, 0)
    most = int(sizes.max())
    if most > _SLOT_TEXT:
        coded = zigzag(sizes)
        packed = pack_varints(coded, int(coded.min()), int(coded.max()))
        _write_words(row, field, present, packed)
        row.joined_with(column.cast(pa.binary()).fill_null(b""))
        return
    low, high = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(high - low + 2 * WINDOW_BYTES, np.uint8)
    if high > low:
        padded[: high - low] = np.frombuffer(content, np.uint8)[low:high]
    _write_short_texts(row, field, present, (anywhere(padded, "<u8"), offsets[:-1] - low, sizes))


def _write_short_texts(
    row: Row, field: Field, present: Mask | None, texts: tuple[Words, Ints, Ints]
) -> None:
    """Texts with a length of one byte: words at any byte of the text, starts and sizes."""
    words, start, sizes = texts
    null, value = _branches(field)
    # The first word begins with the head: branch and length.
    head = len(value) + 1
    first = (words[start] << U(8 * head)) | (sizes.view(np.uint64) << U(8 * head - 7))
    least, most = int(sizes.min()), int(sizes.max())
    size: Ints | int = sizes + head if least != most else most + head
    if value:
        first |= U(value[0])
    if present is not None:
        first = np.where(present, first, U(null[0]))
        size = np.where(present, size, 1)
    rest = [words[done:][start] for done in range(8 - head, most, 8)]
    row.placed([first, *rest], size, most + head)


def _text(value: str) -> bytes:
    content = value.encode()
    return varint(2 * len(content)) + content


def _write_enum(row: Row, field: Field, column: pa.Array) -> None:
    def number(symbol: str) -> bytes:
        if symbol not in field.symbols:
            raise BadInput(
                f"column {field.name!r} has a symbol that its enum lacks",
                found=repr(symbol),
                expected=", ".join(field.symbols),
            )
        return varint(2 * field.symbols.index(symbol))

    _write_dictionary(row, field, column, number)


def _write_dictionary(
    row: Row, field: Field, column: pa.DictionaryArray, datum: Callable[[str], bytes]
) -> None:
    """Encode each distinct value that is used once, and let rows choose among them."""
    some, present = _present(row, field, column)
    if not some:
        return
    numbers = _numbers(column.indices, "<i4")
    if present is not None:
        numbers = np.where(present, numbers, -1)
    codes: Codes | None = None
    if numbers[0] == numbers[-1] and (numbers == numbers[0]).all():
        used = [int(numbers[0])]
    else:
        # The last place is null's, being code -1.
        seen = np.zeros(len(column.dictionary) + 1, np.bool_)
        seen[numbers] = True
        codes = (np.cumsum(seen) - 1).take(numbers)
        used = np.flatnonzero(seen).tolist()
    known = len(column.dictionary)
    texts = [column.dictionary[u].as_py() if 0 <= u < known else None for u in used]
    if None in texts and field.null_branch is None:
        raise BadInput(f"column {field.name!r} has nulls, and may have none")
    null, value = _branches(field)
    choices = [null if text is None else value + datum(text) for text in texts]
    if max(map(len, choices)) <= WINDOW_BYTES:
        row.coded(choices, codes)
    elif codes is None:
        row.joined_with(pa.array(choices * row.count, pa.binary()))
    else:
        row.joined_with(pa.array(choices, pa.binary()).take(pa.array(codes)))


_WRITERS: Final[Mapping[str, Callable[[Row, Field, pa.Array], None]]] = {
    "boolean": _write_boolean,
    "int": _write_number,
    "long": _write_number,
    "enum": _write_enum,
    "decimal": _write_decimal,
    "string": _write_text,
    "bytes": _write_text,
}
