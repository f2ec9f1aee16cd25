"""Columns to Avro messages: all rows at once, field by field, never one by one.

Every row gets a slot of its own in a buffer, wide enough for the widest; each field writes its
bytes as words at the row's position and moves it on; what a word writes too much is overwritten by
the next field, or lies behind the row. In the end the slots are packed. The bytes are those that
any Avro library writes: canonical varints, fixed decimals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput, Refused
from k2.model.plan import Field, fields_of
from k2.model.schema import Schema
from k2.model.words import (
    WINDOW_BYTES,
    Ints,
    Mask,
    U,
    Words,
    anywhere,
    pack_varints,
    to_views,
    varint,
    zigzag,
)

Codes = npt.NDArray[np.integer[Any]]

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
    row = _Row(count)
    for field, array in zip(fields, arrays, strict=True):
        _WRITERS[field.form](row, field, array)
    return [row.joined()]


def _slice(column: pa.ChunkedArray, start: int, stop: int) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0).slice(start, stop - start)
    part = column.slice(start, stop - start)
    return pa.concat_arrays(part.chunks)


# --- the bytes of a row, piece by piece


@dataclass
class _Coded:
    """Few different byte strings, and which of them each row has."""

    choices: list[bytes]
    codes: Codes | None
    """None where all rows have the one choice."""


@dataclass
class _Placed:
    """Some words a row (or one for all), of which the first `size` bytes (up to `most`) count."""

    words: list[Any]
    size: Ints | int
    most: int


class _Row:
    """The pieces that make up a row, collected from left to right, then joined for all rows."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pieces: list[_Coded | _Placed] = []
        self._segments: list[pa.Array] = []

    def coded(self, choices: list[bytes], codes: Codes | None = None) -> None:
        """One of a few byte strings in every row; runs of such pieces become one."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, _Coded) and self._fits(last.choices, choices):
            if codes is None:
                codes = last.codes
            elif last.codes is not None:
                codes = last.codes.astype(np.int32) * np.int32(len(choices)) + codes
            self._pieces[-1] = _Coded([a + b for a in last.choices for b in choices], codes)
        else:
            self._pieces.append(_Coded(choices, codes))

    def _fits(self, some: list[bytes], more: list[bytes]) -> bool:
        few = len(some) * len(more) <= max(16, self.count // 32)
        most = max(map(len, some)) + max(map(len, more))
        return (few or len(some) == 1 or len(more) == 1) and most <= WINDOW_BYTES

    def placed(self, words: list[Words], size: Ints | int, most: int) -> None:
        """Words of which the first `size` bytes (at most `most`) count."""
        self._pieces.append(_Placed(words, size, most))

    def joined_with(self, whole: pa.Array) -> None:
        """Byte strings of any length, one a row (binary, no nulls)."""
        self._close_segment()
        self._segments.append(whole)

    def joined(self) -> pa.Array:
        """All rows, as a binary array."""
        self._close_segment()
        if len(self._segments) == 1:
            return self._segments[0]
        return pc.binary_join_element_wise(*self._segments, b"")

    def _close_segment(self) -> None:
        """Write the pieces so far into slots, and pack the slots."""
        if not self._pieces:
            return
        runs = _runs([p if isinstance(p, _Placed) else _place(p) for p in self._pieces])
        self._pieces = []
        stride = sum(piece.most for run in runs for piece in run)
        # The last run may begin at the row's last byte.
        stride += max(_width(run) for run in runs)
        slots = np.empty(self.count * stride + 16, np.uint8)
        scratch = np.empty(self.count * max(_width(run) for run in runs), np.uint8)
        start = np.arange(self.count) * stride
        position = start.copy()
        for run in runs:
            width, at = _width(run), 0
            block = scratch[: self.count * width]
            for piece in run:
                for number, word in enumerate(piece.words):
                    place = at + 8 * number
                    np.ndarray((self.count,), "<u8", block, place, (width,))[:] = word
                at += piece.size if isinstance(piece.size, int) else 0
            kind = f"V{width}"
            anywhere(slots, kind)[position] = block.view(kind)
            position += at
            if not isinstance(run[-1].size, int):
                position += run[-1].size
        self._segments.append(to_views(slots, start, position - start).cast(pa.binary()))


def _place(piece: _Coded) -> _Placed:
    sizes = [len(choice) for choice in piece.choices]
    most = max(sizes)
    count = (most + 7) // 8
    padded = b"".join(choice.ljust(8 * count, b"\0") for choice in piece.choices)
    words = np.frombuffer(padded, "<u8").reshape(len(sizes), count).T
    if piece.codes is None:
        return _Placed(list(words[:, 0]), most, most)
    size: Ints | int = most
    if min(sizes) != most:
        size = np.array(sizes, np.int64).take(piece.codes)
    return _Placed([np.ascontiguousarray(w).take(piece.codes) for w in words], size, most)


def _runs(pieces: list[_Placed]) -> list[list[_Placed]]:
    """Pieces that are written as one: all but the last of them take the same bytes in all rows.

    To write 64 bytes a row takes no longer than to write 8 (7 ns).
    """
    runs: list[list[_Placed]] = []
    for piece in pieces:
        last = runs[-1] if runs else []
        open_ended = not last or not isinstance(last[-1].size, int)
        if open_ended or _width([*last, piece]) > WINDOW_BYTES:
            runs.append([piece])
        else:
            last.append(piece)
    return runs


def _width(run: list[_Placed]) -> int:
    """Bytes that writing the words of a run touches."""
    width, at = 0, 0
    for piece in run:
        width = max(width, at + 8 * len(piece.words))
        at += piece.most
    return width


# --- one writer a form


def _branches(field: Field) -> tuple[bytes, bytes]:
    """The union's number of null and of a value, encoded; both empty where there is no union."""
    if field.null_branch is None:
        return b"", b""
    return bytes([2 * field.null_branch]), bytes([2 - 2 * field.null_branch])


def _present(row: _Row, field: Field, column: pa.Array) -> tuple[bool, Mask | None]:
    """Whether there is any value, and which rows have one (None: all); writes all-null columns."""
    if column.null_count == 0:
        return True, None
    if column.null_count == len(column):
        row.coded([_branches(field)[0]])
        return False, None
    return True, column.is_valid().to_numpy(zero_copy_only=False)


def _write_words(
    row: _Row, field: Field, present: Mask | None, packed: tuple[list[Words], Ints | int, int]
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


def _write_number(row: _Row, field: Field, column: pa.Array) -> None:
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


def _write_decimal(row: _Row, field: Field, column: pa.Array) -> None:
    some, present = _present(row, field, column)
    if not some:
        return
    halves = np.frombuffer(column.buffers()[1], "<u8")
    low = halves[2 * column.offset : 2 * (column.offset + len(column)) : 2]
    _write_words(row, field, present, ([low.byteswap()], 8, 8))


def _write_boolean(row: _Row, field: Field, column: pa.Array) -> None:
    null, value = _branches(field)
    some, present = _present(row, field, column)
    if not some:
        return
    codes = column.cast(pa.uint8()).fill_null(2).to_numpy()
    if present is None and (codes == codes[0]).all():
        row.coded([value + bytes([codes[0]])])
    else:
        row.coded([value + b"\0", value + b"\1", null], codes)


def _write_text(row: _Row, field: Field, column: pa.Array) -> None:
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
    row: _Row, field: Field, present: Mask | None, texts: tuple[Words, Ints, Ints]
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


def _write_enum(row: _Row, field: Field, column: pa.Array) -> None:
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
    row: _Row, field: Field, column: pa.DictionaryArray, datum: Callable[[str], bytes]
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


_WRITERS: Final[Mapping[str, Callable[[_Row, Field, pa.Array], None]]] = {
    "boolean": _write_boolean,
    "int": _write_number,
    "long": _write_number,
    "enum": _write_enum,
    "decimal": _write_decimal,
    "string": _write_text,
    "bytes": _write_text,
}
