"""Avro messages to columns: all messages at once, field by field, never one by one.

Each message has a position and an end of its own; a field is read for all of them from the bytes
at their positions. So a broken message can neither swallow nor fake a neighbour: it is good only if
every field lies within its own bytes and the last one ends exactly where the message ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.model.messages import Messages, Reader
from k2.model.plan import Plan, Step, plan_of
from k2.model.schema import Schema
from k2.model.words import (
    FIRST_BYTES,
    WINDOW_BYTES,
    Ints,
    Mask,
    U,
    Window,
    anywhere,
    fixed_width,
    to_views,
    validity,
    views_over,
)

_PART_BYTES: Final = 1 << 30
"""Messages of more bytes are decoded in parts: string views address 31 bits."""
_CODED_BYTES: Final = 31
"""Longest text of a dictionary column that is compared as words."""


@dataclass(frozen=True)
class Decoded:
    """What came out of a batch of messages.

    `table` has the reader's columns and the good messages' rows, in order; `kept` says which
    messages those are (indices, ascending); `errors` has index and reason of each of the others.
    """

    table: pa.Table
    kept: Ints
    errors: list[tuple[int, str]]


def decode(values: pa.BinaryArray, writer: Mapping[str, Any], reader: Schema) -> Decoded:
    """Decode one Avro datum a message, written with `writer` (parsed JSON), to `reader`'s columns.

    Fields may stand in any order; those that the writer lacks get the reader's defaults; int
    widens to long. A message that breaks Avro's rules, the reader's types or its own length is
    reported with the field and the reason, and touches no other. Overlong varints are taken, up
    to the ten bytes that 64 bits can need. Raises `Refused` for a writer that cannot be resolved:
    a field unknown to the reader, or a type that the reader's cannot hold.
    """
    return _decode(values, plan_of(writer, reader.avro), reader)


def _decode(values: pa.BinaryArray, plan: Plan, reader: Schema) -> Decoded:
    count = len(values)
    if count == 0:
        return Decoded(reader.arrow.empty_table(), np.arange(0), [])
    if count > 1 and values.nbytes > _PART_BYTES:
        half = count // 2
        first = _decode(values.slice(0, half), plan, reader)
        second = _decode(values.slice(half), plan, reader)
        return Decoded(
            pa.concat_tables([first.table, second.table]),
            np.concatenate([first.kept, second.kept + half]),
            first.errors + [(half + i, why) for i, why in second.errors],
        )
    messages = Messages(values, plan.zero_bytes)
    found = {
        step.target.name: messages.read(step, _READERS[step.source.form]) for step in plan.steps
    }
    messages.finish()
    columns = [
        found[name] if name in found else _constant(plan.defaults[name], count, kind)
        for name, kind in zip(reader.arrow.names, reader.arrow.types, strict=True)
    ]
    kept = np.arange(count)
    if messages.errors:
        kept = np.delete(kept, list(messages.errors))
        # Columns are cut before they become a table: a bad row may have null where none may be.
        columns = [column.take(pa.array(kept)) for column in columns]
    table = pa.Table.from_arrays(columns, schema=reader.arrow)
    return Decoded(table, kept, sorted(messages.errors.items()))


def _constant(value: Any, count: int, kind: pa.DataType) -> pa.Array:
    """A column of `count` times the same default, as Avro's JSON has it."""
    if value is None:
        return pa.nulls(count, kind)
    if isinstance(value, str) and pa.types.is_binary(kind):
        value = value.encode("latin-1")
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [value])
    return pa.repeat(pa.scalar(value, kind), count)


# --- one reader a form: reads at the window, moves it on, gives the column


def _read_number(messages: Messages, step: Step, window: Window, present: Mask | None) -> pa.Array:
    found = messages.varint(step.source.name, window)
    if step.source.form == "int":
        narrow = found.astype(np.int32)
        wrong = narrow != found
        if wrong.any():
            messages.fail(step.source.name, wrong, "does not fit 32 bits", window)
        if step.target.form == "int":
            return fixed_width(step.arrow, narrow, present)
    return fixed_width(step.arrow, found, present)


def _read_boolean(messages: Messages, step: Step, window: Window, present: Mask | None) -> pa.Array:
    found = window.byte()
    window.move(1)
    wrong = found > 1
    if wrong.any():
        messages.fail(step.source.name, wrong, "is neither true nor false", window)
    buffers = [validity(present), validity(found == 1)]
    return pa.Array.from_buffers(step.arrow, messages.count, buffers)


def _read_enum(messages: Messages, step: Step, window: Window, present: Mask | None) -> pa.Array:
    found = messages.varint(step.source.name, window)
    wrong = (found < 0) | (found >= len(step.symbols))
    if wrong.any():
        messages.fail(step.source.name, wrong, "no such symbol of the enum", window)
        found[wrong] = 0
    codes = np.array(step.symbols, np.int32).take(found)
    if -1 in step.symbols:
        unknown = codes < 0
        codes[unknown] = 0
        if present is not None:
            unknown &= present
        why = "a symbol that this reader does not know"
        messages.fail(step.source.name, unknown, why, window)
    return _dictionary(codes, pa.array(step.target.symbols, pa.string()), present)


def _read_decimal(messages: Messages, step: Step, window: Window, present: Mask | None) -> pa.Array:
    if step.source.size == 8:
        unscaled = window.word(kind=">i8").astype(np.int64)
        window.move(8)
    else:
        unscaled = _unscaled(messages, step, window)
    limit = 10**step.source.precision - 1
    wrong = (unscaled > limit) | (unscaled < -limit)
    if wrong.any():
        why = f"does not fit {step.target}"
        messages.fail(step.source.name, wrong, why, window)
        unscaled[wrong] = 0
    halves = np.empty((len(unscaled), 2), np.int64)
    halves[:, 0] = unscaled
    np.right_shift(unscaled, 63, out=halves[:, 1])
    return fixed_width(step.arrow, halves, present)


def _unscaled(messages: Messages, step: Step, window: Window) -> Ints:
    """Big-endian numbers of any length; what 64 bits cannot hold becomes their greatest."""
    if step.source.size is None:
        start, size = messages.sized(step.source.name, window)
    else:
        start, size = window.position(), np.full(messages.count, step.source.size)
        window.move(step.source.size)
        # Cut messages are found only after this: their bytes are not looked at here.
        start[start + size > messages.end] = 0
    # Bytes before the last eight may only repeat the sign.
    head = np.maximum(size - 8, 0)
    word = anywhere(messages.data, ">i8")[start + head].astype(np.int64)
    unscaled: Ints = word >> np.minimum(8 * (8 - (size - head)), 63)
    unscaled[size == 0] = 0
    for row in np.flatnonzero(head).tolist():
        bytes_before = messages.data[start[row] : start[row] + head[row]]
        if (bytes_before != (0xFF if unscaled[row] < 0 else 0)).any():
            unscaled[row] = np.iinfo(np.int64).max
    return unscaled


def _read_text(messages: Messages, step: Step, window: Window, present: Mask | None) -> pa.Array:
    head = window.byte()
    coded = pa.types.is_dictionary(step.arrow)
    # Lengths of one byte: up to 63, not negative.
    short = not (head & 0x81).any()
    most = int(head.max()) // 2 if short else WINDOW_BYTES
    if coded and most <= _CODED_BYTES:
        return _read_codes(messages, step, window, present, most)
    if most <= 12:
        views = np.empty((messages.count, 2), np.uint64)
        size = (head >> 1).astype(np.int64)
        np.left_shift(window.word(1), U(32), out=views[:, 0])
        views[:, 0] |= size.view(np.uint64)
        views[:, 1] = window.word(5)
        start = window.position() + 1
        window.move(size + 1)
        array = views_over(views, messages.data, present)
    else:
        start, size = messages.sized(step.source.name, window)
        array = to_views(messages.data, start, size, present)
    if step.target.form == "bytes":
        return array.cast(pa.binary())
    try:
        column = array.cast(pa.string())
    except pa.ArrowInvalid:
        _fail_texts(messages, step, window, start, size)
        column = to_views(messages.data, start, size, present).cast(pa.string())
    return column.dictionary_encode() if coded else column


def _fail_texts(messages: Messages, step: Step, window: Window, start: Ints, size: Ints) -> None:
    """Find the texts that are no UTF-8, mark their messages and make them empty."""
    wrong = np.zeros(messages.count, np.bool_)
    for row, (begin, length) in enumerate(zip(start.tolist(), size.tolist(), strict=True)):
        try:
            messages.data[begin : begin + length].tobytes().decode()
        except UnicodeDecodeError:
            wrong[row] = True
    messages.fail(step.source.name, wrong, "is not UTF-8", window)
    size[wrong] = 0


def _read_codes(
    messages: Messages, step: Step, window: Window, present: Mask | None, most: int
) -> pa.Array:
    """Short texts of a dictionary column: equal bytes get equal codes, each is decoded once."""
    head = window.byte()
    first = int(head[0]) // 2
    here = window.position()
    if window.same(1 + first):
        codes, rows = np.zeros(messages.count, np.int32), np.zeros(1, np.intp)
        window.move(1 + first)
    else:
        size = (head >> 1).astype(np.int64)
        codes, rows = _codes(window, size, most)
        window.move(size + 1)
    texts: list[str] = []
    for code, row in enumerate(rows.tolist()):
        begin = int(here[row]) + 1
        length = int(head[row]) // 2
        try:
            texts.append(messages.data[begin : begin + length].tobytes().decode())
        except UnicodeDecodeError:
            messages.fail(step.source.name, codes == code, "is not UTF-8", window)
            texts.append(f"\ufffd{code}")
    return _dictionary(codes, pa.array(texts, pa.string()), present)


def _codes(
    window: Window, size: Ints, most: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """A code for each text behind its length, counted from 0, and a row that has each code."""
    codes, distinct = np.zeros(len(size), np.int32), 1
    for at in range(0, most, 8):
        word = window.word(1 + at) & FIRST_BYTES.take(size - at, mode="clip")
        codes, distinct = _split(codes, distinct, word)
    rows = _a_row_each(codes, distinct)
    # Words are filled up with zeros: the length tells "a" from "a\0".
    if (size != size[rows].take(codes)).any():
        codes, distinct = _split(codes, distinct, size)
        rows = _a_row_each(codes, distinct)
    return codes, rows


def _split(
    codes: npt.NDArray[np.int32], distinct: int, more: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.int32], int]:
    """Codes that tell apart what the codes before or `more` tell apart."""
    found = pa.array(more).dictionary_encode()
    if len(found.dictionary) == 1:
        return codes, distinct
    if distinct > 1:
        pairs = codes.astype(np.int64) * len(found.dictionary) + found.indices.to_numpy()
        found = pa.array(pairs).dictionary_encode()
    return found.indices.to_numpy(), len(found.dictionary)


def _a_row_each(codes: npt.NDArray[np.int32], distinct: int) -> npt.NDArray[np.intp]:
    rows = np.zeros(distinct, np.intp)
    rows[codes] = np.arange(len(codes))
    return rows


def _dictionary(
    codes: npt.NDArray[np.int32], distinct: pa.Array, present: Mask | None
) -> pa.DictionaryArray:
    indices = fixed_width(pa.int32(), codes, present)
    return pa.DictionaryArray.from_arrays(indices, distinct, safe=False)


_READERS: Final[Mapping[str, Reader]] = {
    "boolean": _read_boolean,
    "int": _read_number,
    "long": _read_number,
    "enum": _read_enum,
    "decimal": _read_decimal,
    "string": _read_text,
    "bytes": _read_text,
}
