"""Avro messages to columns: all messages at once, field by field, never one by one.

Each message has a position and an end of its own; a field is read for all of them by gathering
words at their positions. So a broken message can neither swallow nor fake a neighbour: it is good
only if every field lies within its own bytes and the last one ends exactly where the message ends.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from k2.errors import Refused
from k2.model.plan import Field, fields_of
from k2.model.schema import Schema, to_arrow

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

_BLOCK_BYTES: Final = 1 << 30
"""Messages of more bytes are decoded in parts: string views address 31 bits."""
_TAIL: Final = 64
"""Zero bytes behind the messages, so that a word may be read anywhere."""
_CODE_WORDS: Final = 4
"""Dictionary columns with strings of up to 8 times this (less one) bytes are compared as words."""

_U: Final = np.uint64
_CONTINUES: Final = _U(0x8080808080808080)
_SEVENS: Final = _U(0x7F7F7F7F7F7F7F7F)
_ONE: Final = _U(1)
_KEEP: Final = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""Mask of the first n bytes of a little-endian word."""


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
    plan = _plan(_as_json(writer), _as_json(reader.avro))
    return _decode(values, plan, reader)


def _as_json(avro: Mapping[str, Any]) -> bytes:
    return orjson.dumps(avro, default=dict)


def _decode(values: pa.BinaryArray, plan: "_Plan", reader: Schema) -> Decoded:
    count = len(values)
    if count > 1 and values.nbytes > _BLOCK_BYTES:
        half = count // 2
        first = _decode(values.slice(0, half), plan, reader)
        second = _decode(values.slice(half), plan, reader)
        return Decoded(
            pa.concat_tables([first.table, second.table]),
            np.concatenate([first.kept, second.kept + half]),
            first.errors + [(half + i, why) for i, why in second.errors],
        )
    messages = _Messages(values, plan.zeros)
    found: dict[str, pa.Array] = {}
    for step in plan.steps:
        found[step.target.name] = messages.read(step)
    messages.finish()
    columns = [
        found[name] if name in found else _constant(plan.defaults[name], count, kind)
        for name, kind in zip(reader.arrow.names, reader.arrow.types, strict=True)
    ]
    if not messages.errors:
        table = pa.Table.from_arrays(columns, schema=reader.arrow)
        return Decoded(table, np.arange(count), [])
    good = np.ones(count, np.bool_)
    good[list(messages.errors)] = False
    kept = np.flatnonzero(good)
    # Columns are cut before they become a table: a null may stand in a bad row of a column that
    # takes none.
    columns = [column.filter(pa.array(good)) for column in columns]
    table = pa.Table.from_arrays(columns, schema=reader.arrow)
    return Decoded(table, kept, sorted(messages.errors.items()))


# --- which field of the writer becomes which column of the reader


@dataclass(frozen=True)
class _Step:
    """One field of the writer and the column that it becomes."""

    source: Field
    target: Field
    arrow: pa.DataType
    symbols: Ints
    """Writer's enum number to the reader's, -1 where the reader has neither symbol nor default."""


@dataclass(frozen=True)
class _Plan:
    steps: tuple[_Step, ...]
    defaults: Mapping[str, object]
    zeros: int
    """Bytes that any record of all zero bytes can take."""


@lru_cache(maxsize=256)
def _plan(writer_json: bytes, reader_json: bytes) -> _Plan:
    reader_avro = orjson.loads(reader_json)
    sources = fields_of(orjson.loads(writer_json))
    targets = {field.name: field for field in fields_of(reader_avro)}
    arrow = to_arrow(reader_avro)
    defaults = {f["name"]: f["default"] for f in reader_avro["fields"] if "default" in f}
    for field in sources:
        if field.name not in targets:
            raise Refused(
                f"the messages have a field {field.name!r} that this reader does not know",
                expected=", ".join(targets),
                hint="they were written by a newer schema: upgrade this reader, nothing is lost",
            )
    missing = targets.keys() - {field.name for field in sources} - defaults.keys()
    if missing:
        raise Refused(
            f"the messages lack {', '.join(sorted(missing))}, which has no default",
            hint="the writer's schema is not one that this kind of record ever had",
        )
    steps = tuple(_step(source, targets[source.name], arrow) for source in sources)
    return _Plan(steps, defaults, 16 + sum(field.least_bytes for field in sources))


def _step(source: Field, target: Field, arrow: pa.Schema) -> _Step:
    text = ("string", "bytes")
    same = source.form == target.form and source.logical == target.logical
    wider = source.form == "int" and target.form == "long" and not source.logical
    widened = wider and not target.logical
    if source.form == "decimal" and same:
        same = (source.precision, source.scale) == (target.precision, target.scale)
    if not (same or widened or (source.form in text and target.form in text)):
        raise Refused(
            f"the messages' field {source.name!r} cannot be read as the reader's",
            found=_describe(source),
            expected=_describe(target),
        )
    numbers = [_number_of(symbol, target) for symbol in source.symbols]
    kind = arrow.field(source.name).type
    return _Step(source, target, kind, np.array(numbers, np.int64))


def _number_of(symbol: str, target: Field) -> int:
    if symbol not in target.symbols and target.enum_default is not None:
        symbol = target.enum_default
    return target.symbols.index(symbol) if symbol in target.symbols else -1


def _describe(field: Field) -> str:
    if field.form == "decimal":
        return f"decimal({field.precision},{field.scale})"
    return f"{field.form} {field.logical}" if field.logical else field.form


def _constant(value: object, count: int, kind: pa.DataType) -> pa.Array:
    """A column of `count` times the same default, as Avro's JSON has it."""
    if value is None:
        return pa.nulls(count, kind)
    if isinstance(value, str) and pa.types.is_binary(kind):
        value = value.encode("latin-1")
    if pa.types.is_dictionary(kind):
        return pa.DictionaryArray.from_arrays(np.zeros(count, np.int32), [value])
    return pa.repeat(pa.scalar(value, kind), count)


# --- reading


class _Messages:
    """A batch of messages while it is read: where each stands, and which are broken.

    In front of the bytes stands a run of zeros: what is null or broken reads there, and so yields
    zeros, without leaving the loop-free path. Positions therefore stay below every `end`.
    """

    def __init__(self, values: pa.BinaryArray, zeros: int) -> None:
        wide = pa.types.is_large_binary(values.type)
        self.count = len(values)
        _, offsets_buffer, data = values.buffers()
        offsets = np.zeros(1, np.int64)
        if self.count:
            kind = np.int64 if wide else np.int32
            all_offsets = np.frombuffer(offsets_buffer, kind)
            part = all_offsets[values.offset : values.offset + self.count + 1]
            offsets = part.astype(np.int64)
        low, high = int(offsets[0]), int(offsets[-1])
        self.bytes = np.zeros(zeros + high - low + _TAIL, np.uint8)
        if high > low:
            self.bytes[zeros : zeros + high - low] = np.frombuffer(data, np.uint8)[low:high]
        offsets += zeros - low
        self.pos, self.end = offsets[:-1].copy(), offsets[1:]
        self.little = self._words("<u8")
        self.big = self._words(">i8")
        self.errors: dict[int, str] = {}
        self._broken: list[Ints] = []
        if values.null_count:
            self._fail("message", values.is_null().to_numpy(zero_copy_only=False), "has no value")
            self.pos[self._broken.pop()] = 0

    def _words(self, kind: str) -> npt.NDArray[Any]:
        """Every eight bytes, whatever their alignment, as a word of their own."""
        return np.ndarray((len(self.bytes) - 7,), kind, self.bytes, strides=(1,))

    def _fail(self, name: str, which: Mask, why: str, reached: Ints | None = None) -> Ints:
        """Mark messages as broken; `reached` is where the bytes end that gave the reason."""
        rows = np.flatnonzero(which)
        for row in rows.tolist():
            cut = reached is not None and reached[row] > self.end[row]
            reason = "the message ends inside it" if cut else why
            self.errors.setdefault(row, f"{name}: {reason}")
        self._broken.append(rows)
        return rows

    def finish(self) -> None:
        """Mark messages that go on behind their last field."""
        rest = self.end - self.pos
        for row in np.flatnonzero(rest).tolist():
            self.errors.setdefault(row, f"{rest[row]} bytes are left over after the last field")

    def read(self, step: _Step) -> pa.Array:
        """Read one field of every message."""
        present = self._branch(step)
        if present is not None and not present.any():
            return pa.nulls(self.count, step.arrow)
        here = self.pos if present is None else np.where(present, self.pos, 0)
        column, after = _READERS[step.source.form](self, step, here, present)
        self.pos = after if present is None else np.where(present, after, self.pos)
        beyond = self.pos > self.end
        if beyond.any():
            self._fail(step.source.name, beyond, "the message ends inside it")
        for rows in self._broken:
            self.pos[rows] = 0
        self._broken.clear()
        return column

    def _branch(self, step: _Step) -> Mask | None:
        """Which messages have a value; None where all have. Steps over the union's number."""
        null = step.source.null_branch
        if null is None:
            return None
        branch, after = self.varint(step.source.name, self.pos)
        present = branch == 1 - null
        if not present.all():
            absent = branch == null
            strange = ~(present | absent)
            if strange.any():
                self._fail(step.source.name, strange, "no such branch of the union", after)
            if step.target.null_branch is None and absent.any():
                self._fail(step.source.name, absent, "is null, and may not be", after)
        self.pos = after
        for rows in self._broken:
            self.pos[rows] = 0
        self._broken.clear()
        return None if present.all() else present

    def varint(self, name: str, pos: Ints) -> tuple[Ints, Ints]:
        """The zigzag number at each position, and where it ends."""
        word = self.little[pos]
        stops = ~word & _CONTINUES
        if (stops & _U(0x80)).all():
            word &= _U(0x7F)
            return _unzigzag(word), pos + 1
        lowest = stops & -stops
        unfinished = lowest == 0
        taken = lowest ^ (lowest - _ONE)
        size = (np.bitwise_count(taken) >> 3).astype(np.int64)
        word &= taken
        word &= _SEVENS
        word = (word & _U(0x007F007F007F007F)) | ((word & _U(0x7F007F007F007F00)) >> _ONE)
        word = (word & _U(0x00003FFF00003FFF)) | ((word & _U(0x3FFF00003FFF0000)) >> _U(2))
        word = (word & _U(0x000000000FFFFFFF)) | ((word & _U(0x0FFFFFFF00000000)) >> _U(4))
        if unfinished.any():
            rows = np.flatnonzero(unfinished)
            ninth = self.bytes[pos[rows] + 8].astype(np.uint64)
            tenth = self.bytes[pos[rows] + 9].astype(np.uint64)
            more = ninth >= 0x80
            size[rows] = np.where(more, 10, 9)
            word[rows] |= (ninth & _U(0x7F)) << _U(56)
            word[rows] |= np.where(more, tenth & _ONE, _U(0)) << _U(63)
            wrong = rows[more & (tenth > 1)]
            if len(wrong):
                endless = np.zeros(self.count, np.bool_)
                endless[wrong] = True
                self._fail(name, endless, "a number of more than 64 bits", pos + size)
        return _unzigzag(word), pos + size

    def lengths(self, name: str, pos: Ints) -> tuple[Ints, Ints]:
        """Where the bytes that follow a length begin, and how many they are, all of them there."""
        length, start = self.varint(name, pos)
        wrong = (length < 0) | (length > self.end - start)
        if wrong.any():
            negative = wrong & (length < 0)
            self._fail(name, negative, "its length is negative", start)
            self._fail(name, wrong & ~negative, "the message ends inside it")
            length[wrong] = 0
            start[wrong] = 0
        return start, length


def _unzigzag(word: Words) -> Ints:
    sign = word & _ONE
    word >>= _ONE
    word ^= -sign
    return word.view(np.int64)


def _read_number(
    messages: _Messages, step: _Step, here: Ints, present: Mask | None
) -> tuple[pa.Array, Ints]:
    found, after = messages.varint(step.source.name, here)
    if step.source.form == "int":
        narrow = found.astype(np.int32)
        wrong = narrow != found
        if wrong.any():
            messages._fail(step.source.name, wrong, "does not fit 32 bits", after)
        if step.target.form == "int":
            return _fixed_width(step.arrow, narrow, present), after
    return _fixed_width(step.arrow, found, present), after


def _read_boolean(
    messages: _Messages, step: _Step, here: Ints, present: Mask | None
) -> tuple[pa.Array, Ints]:
    found, after = messages.bytes[here], here + 1
    wrong = found > 1
    if wrong.any():
        messages._fail(step.source.name, wrong, "is neither true nor false", after)
    bits = pa.py_buffer(np.packbits(found == 1, bitorder="little"))
    return pa.Array.from_buffers(step.arrow, len(found), [_validity(present), bits]), after


def _read_enum(
    messages: _Messages, step: _Step, here: Ints, present: Mask | None
) -> tuple[pa.Array, Ints]:
    found, after = messages.varint(step.source.name, here)
    wrong = (found < 0) | (found >= len(step.symbols))
    if wrong.any():
        messages._fail(step.source.name, wrong, "no such symbol of the enum", after)
        found[wrong] = 0
    codes = step.symbols[found].astype(np.int32)
    unknown = codes < 0
    if present is not None:
        unknown &= present
    if unknown.any():
        why = "a symbol that this reader does not know"
        messages._fail(step.source.name, unknown, why, after)
    codes[codes < 0] = 0
    return _dictionary(codes, pa.array(step.target.symbols, pa.string()), present), after


def _read_decimal(
    messages: _Messages, step: _Step, here: Ints, present: Mask | None
) -> tuple[pa.Array, Ints]:
    name = step.source.name
    if step.source.size == 8:
        unscaled, after = messages.big[here].astype(np.int64), here + 8
    else:
        if step.source.size is None:
            start, length = messages.lengths(name, here)
        else:
            start, length = here, np.full(messages.count, step.source.size)
        after = start + length
        # Bytes before the last eight may only repeat the sign.
        first = np.maximum(length - 8, 0)
        shift = 8 * (8 - (length - first))
        unscaled = messages.big[start + first].astype(np.int64) >> np.minimum(shift, 63)
        unscaled[length == 0] = 0
        for row in np.flatnonzero(first).tolist():
            head = messages.bytes[start[row] : start[row] + first[row]]
            if (head != (0xFF if unscaled[row] < 0 else 0)).any():
                unscaled[row] = np.iinfo(np.int64).max
    limit = 10**step.source.precision - 1
    wrong = (unscaled > limit) | (unscaled < -limit)
    if wrong.any():
        why = f"does not fit decimal({step.target.precision},{step.target.scale})"
        messages._fail(name, wrong, why, after)
        unscaled[wrong] = 0
    halves = np.empty((len(unscaled), 2), np.int64)
    halves[:, 0] = unscaled
    np.right_shift(unscaled, 63, out=halves[:, 1])
    return _fixed_width(step.arrow, halves, present), after


def _read_text(
    messages: _Messages, step: _Step, here: Ints, present: Mask | None
) -> tuple[pa.Array, Ints]:
    start, length = messages.lengths(step.source.name, here)
    after = start + length
    if not pa.types.is_dictionary(step.arrow):
        return _texts(messages, step, start, length, present), after
    if len(length) and int(length.max()) < 8 * _CODE_WORDS:
        codes, firsts = _codes(messages.little, start, length)
        distinct = _dictionary_of(messages, step, start[firsts], length[firsts], codes)
        return _dictionary(codes, distinct, present), after
    return _texts(messages, step, start, length, present).dictionary_encode(), after


def _dictionary_of(
    messages: _Messages, step: _Step, start: Ints, length: Ints, codes: npt.NDArray[np.int32]
) -> pa.Array:
    """The distinct texts; a message whose text is no UTF-8 breaks."""
    texts: list[str] = []
    for code, (begin, size) in enumerate(zip(start.tolist(), length.tolist(), strict=True)):
        try:
            texts.append(messages.bytes[begin : begin + size].tobytes().decode())
        except UnicodeDecodeError:
            messages._fail(step.source.name, codes == code, "is not UTF-8")
            texts.append(f"\ufffd{code}")
    return pa.array(texts, pa.string())


def _codes(
    words: Words, start: Ints, length: Ints
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.intp]]:
    """Equal short texts to equal codes, counted from 0, and a row that has each code."""
    codes = np.zeros(len(start), np.int32)
    distinct = 1
    last = int(length.max()) // 8
    for number in range(last + 1):
        if number:
            word = words[start + 8 * number] & _KEEP[np.clip(length - 8 * number, 0, 8)]
        else:
            word = words[start] & _KEEP[np.minimum(length, 8)]
        if number == last:
            # The last word has a byte to spare; the length in it tells "a" from "a\0".
            word |= length.view(np.uint64) << _U(56)
        if (word == word[0]).all():
            continue
        found = pa.array(word).dictionary_encode()
        if distinct > 1:
            pairs = codes.astype(np.int64) * len(found.dictionary) + found.indices.to_numpy()
            found = pa.array(pairs).dictionary_encode()
        codes, distinct = found.indices.to_numpy(), len(found.dictionary)
    firsts = np.zeros(distinct, np.intp)
    firsts[codes] = np.arange(len(codes))
    return codes, firsts


def _texts(
    messages: _Messages, step: _Step, start: Ints, length: Ints, present: Mask | None
) -> pa.Array:
    kind = pa.binary() if step.target.form == "bytes" else pa.string()
    views = to_views(messages.bytes, start, length, _validity(present))
    try:
        return views.cast(kind)
    except pa.ArrowInvalid:
        for row, (begin, size) in enumerate(zip(start.tolist(), length.tolist(), strict=True)):
            try:
                messages.bytes[begin : begin + size].tobytes().decode()
            except UnicodeDecodeError:
                only = np.zeros(len(start), np.bool_)
                only[row] = True
                messages._fail(step.source.name, only, "is not UTF-8")
                length[row] = 0
        return to_views(messages.bytes, start, length, _validity(present)).cast(kind)


_READERS: Final[
    Mapping[str, Callable[[_Messages, _Step, Ints, Mask | None], tuple[pa.Array, Ints]]]
] = {
    "boolean": _read_boolean,
    "int": _read_number,
    "long": _read_number,
    "enum": _read_enum,
    "decimal": _read_decimal,
    "string": _read_text,
    "bytes": _read_text,
}


# --- columns out of numbers


def to_views(
    data: npt.NDArray[np.uint8], start: Ints, length: Ints, validity: pa.Buffer | None = None
) -> pa.Array:
    """Slices of one buffer as an Arrow `binary_view` array, to be cast (which copies) at once.

    12 bytes behind each start must be readable, and the buffer be shorter than 2 GiB.
    """
    eights = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))
    fours = np.ndarray((len(data) - 3,), "<u4", data, strides=(1,))
    views = np.empty((len(start), 2), np.uint64)
    views[:, 0] = fours[start]
    views[:, 0] <<= _U(32)
    views[:, 0] |= length.view(np.uint64)
    # Up to 12 bytes stand in the view itself; longer ones are buffer 0 and an offset in it.
    inline = length <= 12
    if inline.all():
        views[:, 1] = eights[start + 4]
    else:
        np.left_shift(start.view(np.uint64), _U(32), out=views[:, 1])
        if inline.any():
            views[inline, 1] = eights[start[inline] + 4]
    buffers = [validity, pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary_view(), len(start), buffers)


def _validity(present: Mask | None) -> pa.Buffer | None:
    if present is None:
        return None
    return pa.py_buffer(np.packbits(present, bitorder="little"))


def _fixed_width(kind: pa.DataType, found: npt.NDArray[Any], present: Mask | None) -> pa.Array:
    buffers = [_validity(present), pa.py_buffer(found)]
    return pa.Array.from_buffers(kind, len(found), buffers)


def _dictionary(
    codes: npt.NDArray[np.int32], distinct: pa.Array, present: Mask | None
) -> pa.DictionaryArray:
    indices = _fixed_width(pa.int32(), codes, present)
    return pa.DictionaryArray.from_arrays(indices, distinct, safe=False)
