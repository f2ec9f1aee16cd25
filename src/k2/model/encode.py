"""Columns to Avro messages: all rows at once, field by field, never one by one.

Every row gets a slot of its own in a buffer, wide enough for the widest; each field writes its
bytes as words at the row's position and moves it on; what a word writes too much is overwritten by
the next field, or lies behind the row. In the end the slots are packed. The bytes are those that
any Avro library writes: canonical varints, fixed decimals.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput, Refused
from k2.model.decode import Mask, Words, to_views
from k2.model.plan import Field, fields_of
from k2.model.schema import Schema

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.integer[Any]]

_BLOCK_ROWS: Final = 1 << 16
_BLOCK_BYTES: Final = 1 << 30
_SLOT_TEXT: Final = 63
"""Longer texts do not go through the slots (one pass a word): they are joined to the rest."""
_INT32_BYTES: Final = (1 << 31) - 1

_U: Final = np.uint64
_CONTINUE: Final = np.array(
    [0] + [0x8080808080808080 & ((1 << 8 * (n - 1)) - 1) for n in range(1, 10)] + [0] * 1,
    np.uint64,
)


def encode(table: pa.Table, schema: Schema) -> pa.BinaryArray:
    """Encode each row as one Avro datum of `schema`, without any wire header.

    Columns are found by name and may be of any type that casts to the schema's without loss;
    those that the schema lacks are ignored. The array is `large_binary` past 2 GiB. Raises
    `BadInput`, naming the column, for one that is missing, of another type, null where it may not
    be, or an enum with an unknown symbol.
    """
    fields = _fields(orjson.dumps(schema.avro, default=dict))
    columns = [_column(table, field, schema) for field in fields]
    parts = _encode_rows(pa.Table.from_arrays(columns, list(schema.arrow.names)), fields)
    if len(parts) == 1:
        return parts[0]
    if sum(part.nbytes for part in parts) > _INT32_BYTES:
        parts = [part.cast(pa.large_binary()) for part in parts]
    return pa.concat_arrays(parts)


@lru_cache(maxsize=256)
def _fields(avro_json: bytes) -> tuple[Field, ...]:
    return fields_of(orjson.loads(avro_json))


def _column(table: pa.Table, field: Field, schema: Schema) -> pa.ChunkedArray:
    kind = schema.arrow.field(field.name).type
    if field.form == "decimal" and field.size != 8:
        raise Refused(f"field {field.name!r} cannot be written", expected="a decimal in fixed(8)")
    if field.name not in table.column_names:
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


def _encode_rows(table: pa.Table, fields: tuple[Field, ...]) -> list[pa.Array]:
    if table.num_rows > _BLOCK_ROWS or (table.num_rows > 1 and table.nbytes > _BLOCK_BYTES):
        half = min(_BLOCK_ROWS, (table.num_rows + 1) // 2)
        first = _encode_rows(table.slice(0, half), fields)
        return first + _encode_rows(table.slice(half), fields)
    row = _Row(table.num_rows)
    for field, column in zip(fields, table.columns, strict=True):
        array = column.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks)
        _WRITERS[field.form](row, field, array)
    return [row.joined()]


# --- the bytes of a row, piece by piece


@dataclass
class _Coded:
    """Few different byte strings, and which of them each row has."""

    choices: list[bytes]
    codes: Codes | None
    """None where all rows have the one choice."""


@dataclass
class _Placed:
    """Up to a few words a row, of which the first `length` bytes count."""

    words: list[Words]
    length: Ints | int
    most: int


class _Row:
    """The pieces that make up a row, collected from left to right, then joined for all rows."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pieces: list[_Coded | _Placed] = []
        self._segments: list[pa.Array] = []

    def constant(self, what: bytes) -> None:
        """The same bytes in every row."""
        self.coded([what], None)

    def coded(self, choices: list[bytes], codes: Codes | None) -> None:
        """One of a few byte strings in every row; runs of such pieces become one."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, _Coded) and self._fits(last, choices):
            if codes is None:
                codes = last.codes
            elif last.codes is not None:
                codes = last.codes.astype(np.int32) * np.int32(len(choices)) + codes
            self._pieces[-1] = _Coded([a + b for a in last.choices for b in choices], codes)
        else:
            self._pieces.append(_Coded(choices, codes))

    def _fits(self, last: _Coded, choices: list[bytes]) -> bool:
        combined = len(last.choices) * len(choices)
        few = combined <= max(16, self.count // 32)
        alone = len(last.choices) == 1 or len(choices) == 1
        most = max(map(len, last.choices)) + max(map(len, choices))
        return (few or alone) and most <= _SLOT_TEXT + 1

    def placed(self, words: list[Words], length: Ints | int, most: int) -> None:
        """Words of which the first `length` bytes (at most `most`) count."""
        self._pieces.append(_Placed(words, length, most))

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
        if not self._pieces:
            return
        placed = [p if isinstance(p, _Placed) else self._place(p) for p in self._pieces]
        self._pieces = []
        stride = sum(piece.most for piece in placed)
        # A word may begin at the row's last byte, and a short text still writes all its words.
        stride += 8 * max(len(piece.words) for piece in placed)
        slots = np.empty(self.count * stride + 16, np.uint8)
        eights = np.ndarray((len(slots) - 7,), "<u8", slots, strides=(1,))
        start = np.arange(self.count) * stride
        pos = start.copy()
        for piece in placed:
            for number, word in enumerate(piece.words):
                eights[8 * number :][pos] = word
            pos += piece.length
        self._segments.append(to_views(slots, start, pos - start).cast(pa.binary()))

    def _place(self, piece: _Coded) -> _Placed:
        sizes = [len(choice) for choice in piece.choices]
        most = max(sizes)
        width = (most + 7) // 8
        padded = b"".join(choice.ljust(8 * width, b"\0") for choice in piece.choices)
        words = np.frombuffer(padded, "<u8").reshape(len(sizes), width)
        length: Ints | int = most
        if piece.codes is None:
            return _Placed([words[0, number] for number in range(width)], most, most)
        if min(sizes) != most:
            length = np.array(sizes, np.int64).take(piece.codes)
        columns = np.ascontiguousarray(words.T)
        return _Placed([column.take(piece.codes) for column in columns], length, most)


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
        row.constant(_branches(field)[0])
        return False, None
    return True, column.is_valid().to_numpy(zero_copy_only=False)


def _numbers(column: pa.Array, kind: str) -> npt.NDArray[Any]:
    found = np.frombuffer(column.buffers()[1], kind)
    return found[column.offset : column.offset + len(column)]


def _branch_and_words(
    row: _Row,
    field: Field,
    present: Mask | None,
    words: list[Words],
    length: Ints | int,
    most: int,
) -> None:
    """A value's words behind its union's branch, if there is one."""
    null, value = _branches(field)
    if present is None:
        if value and most <= 7:
            row.placed([(words[0] << _U(8)) | _U(value[0])], length + 1, most + 1)
            return
        if value:
            row.constant(value)
        row.placed(words, length, most)
        return
    if most <= 7:
        word = np.where(present, (words[0] << _U(8)) | _U(value[0]), _U(null[0]))
        row.placed([word], np.where(present, length + 1, 1), most + 1)
        return
    row.coded([null, value], present.view(np.uint8))
    row.placed(words, np.where(present, length, 0), most)


def _write_number(row: _Row, field: Field, column: pa.Array) -> None:
    some, present = _present(row, field, column)
    if not some or not row.count:
        return
    numbers = _numbers(column, "<i4" if field.form == "int" else "<i8").astype(np.int64)
    if present is not None:
        numbers = np.where(present, numbers, 0)
    zigzag = ((numbers << 1) ^ (numbers >> 63)).view(np.uint64)
    low, high = int(zigzag.min()), int(zigzag.max())
    if low == high and present is None:
        row.constant(_branches(field)[1] + _varint(low))
        return
    words, length, most = _varints(zigzag, low, high)
    _branch_and_words(row, field, present, words, length, most)


def _varint(zigzag: int) -> bytes:
    out = bytearray()
    while zigzag >= 0x80:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    out.append(zigzag)
    return bytes(out)


def _varints(zigzag: Words, low: int, high: int) -> tuple[list[Words], Ints | int, int]:
    """Words, lengths and greatest length of varints between `low` and `high`."""
    least, most = len(_varint(low)), len(_varint(high))
    length: Ints | int = most
    if least != most:
        length = np.full(len(zigzag), least)
        for size in range(least, most):
            length += zigzag >= _U(1 << 7 * size)
    word = zigzag & _U((1 << 56) - 1) if most > 8 else zigzag
    if most > 4:
        word = (word & _U(0x0FFFFFFF)) | ((word & _U(0x00FFFFFFF0000000)) << _U(4))
    if most > 2:
        word = (word & _U(0x00003FFF00003FFF)) | ((word & _U(0x0FFFC0000FFFC000)) << _U(2))
    word = (word & _U(0x007F007F007F007F)) | ((word & _U(0x3F803F803F803F80)) << _U(1))
    if isinstance(length, int):
        word |= _CONTINUE[length]
    else:
        word |= _CONTINUE.take(length)
    if most <= 8:
        return [word], length, most
    word |= np.where(zigzag >= _U(1 << 56), _U(0x8080808080808080), _U(0))
    ninth = zigzag >> _U(56)
    tenth = np.where(zigzag >= _U(1 << 63), _U(0x0180), _U(0))
    return [word, (ninth & _U(0x7F)) | tenth], length, most


def _write_decimal(row: _Row, field: Field, column: pa.Array) -> None:
    some, present = _present(row, field, column)
    if not some:
        return
    halves = np.frombuffer(column.buffers()[1], "<u8")
    low = halves[2 * column.offset : 2 * (column.offset + len(column)) : 2]
    _branch_and_words(row, field, present, [low.byteswap()], 8, 8)


def _write_boolean(row: _Row, field: Field, column: pa.Array) -> None:
    null, value = _branches(field)
    codes = column.cast(pa.uint8()).fill_null(2).to_numpy()
    row.coded([value + b"\0", value + b"\1", null], codes)


def _write_enum(row: _Row, field: Field, column: pa.Array) -> None:
    numbers = {symbol: number for number, symbol in enumerate(field.symbols)}

    def datum(symbol: str) -> bytes:
        if symbol not in numbers:
            raise BadInput(
                f"column {field.name!r} has a symbol that its enum lacks",
                found=repr(symbol),
                expected=", ".join(field.symbols),
            )
        return _varint(2 * numbers[symbol])

    _write_dictionary(row, field, column, datum)


def _write_text(row: _Row, field: Field, column: pa.Array) -> None:
    if pa.types.is_dictionary(column.type):
        _write_dictionary(row, field, column, _text)
        return
    some, present = _present(row, field, column)
    if not some or not row.count:
        return
    _, offsets_buffer, data = column.buffers()
    all_offsets = np.frombuffer(offsets_buffer, "<i4")
    offsets = all_offsets[column.offset : column.offset + len(column) + 1].astype(np.int64)
    sizes = np.diff(offsets)
    if present is not None:
        sizes = np.where(present, sizes, 0)
    most = int(sizes.max())
    if most > _SLOT_TEXT:
        _write_long_text(row, field, column, present, sizes)
        return
    low, high = int(offsets[0]), int(offsets[-1])
    padded = np.zeros(high - low + 2 * _SLOT_TEXT, np.uint8)
    if high > low:
        padded[: high - low] = np.frombuffer(data, np.uint8)[low:high]
    eights = np.ndarray((len(padded) - 7,), "<u8", padded, strides=(1,))
    start = offsets[:-1] - low
    null, value = _branches(field)
    # First the head: branch and length, as bytes of the first word.
    head = len(value) + 1
    first = (eights[start] << _U(8 * head)) | (sizes.view(np.uint64) << _U(8 * head - 7))
    length = sizes + head
    if value:
        first |= _U(value[0])
    if present is not None:
        first = np.where(present, first, _U(null[0]))
        length = np.where(present, length, 1)
    rest = [eights[done:][start] for done in range(8 - head, most, 8)]
    row.placed([first, *rest], length, most + head)


def _write_long_text(
    row: _Row, field: Field, column: pa.Array, present: Mask | None, sizes: Ints
) -> None:
    zigzag = (sizes << 1).view(np.uint64)
    words, length, most = _varints(zigzag, int(zigzag.min()), int(zigzag.max()))
    _branch_and_words(row, field, present, words, length, most)
    row.joined_with(column.cast(pa.binary()).fill_null(b""))


def _text(value: str) -> bytes:
    data = value.encode()
    return _varint(2 * len(data)) + data


def _write_dictionary(
    row: _Row, field: Field, column: pa.DictionaryArray, datum: Callable[[str], bytes]
) -> None:
    """Encode each distinct value that is used once, and let rows choose among them."""
    null, value = _branches(field)
    codes = column.indices.fill_null(-1).to_numpy()
    used = np.zeros(len(column.dictionary) + 1, np.bool_)
    used[codes] = True
    (found,) = np.nonzero(used)
    # The last place of `used` is null's, being code -1.
    texts = column.dictionary.take(pa.array(found[found < len(column.dictionary)])).to_pylist()
    if used[-1]:
        texts.append(None)
    if None in texts and field.null_branch is None:
        raise BadInput(f"column {field.name!r} has nulls, and may have none")
    choices = [null if text is None else value + datum(text) for text in texts]
    if len(choices) <= 1:
        row.constant(choices[0] if choices else b"")
        return
    if len(choices) < len(used) or used[-1]:
        codes = (np.cumsum(used) - 1).take(codes)
    if max(map(len, choices)) <= _SLOT_TEXT + 1:
        row.coded(choices, codes)
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
