"""Bytes to blocks of whole lines, and lines to columns of text.

Comes in: a stream of bytes. Goes out: blocks of about 2 MiB whose lines keep their number and
bytes, and columns of strings; lines that are none become faults, and the rest goes on.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from k2.errors import Broken
from k2.feeds.mapped.content import Bytes
from k2.feeds.mapped.values import Fault

BLOCK_BYTES: Final = 2 << 20
"""About 50,000 trades, which take well under 100 ms."""
MAX_LINE_BYTES: Final = 64 << 10
"""A longer line is no record; it is rejected."""
MAX_KEPT_BYTES: Final = 1 << 20
"""So much of a rejected line is kept: a message of the log must hold it."""
_QUOTES: Final = "quotation marks do not stand around a whole value"


@dataclass(frozen=True)
class Block:
    """Whole lines: `data` ends with a line end. Line `i` has number `first_line + i`.

    `long` is the length of a line that was too long to be kept whole, and then is the only one.
    """

    data: bytes
    first_line: int
    long: int | None = None

    @cached_property
    def bounds(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where each line starts, and ends before its line end."""
        array = np.frombuffer(self.data, np.uint8)
        ends = np.flatnonzero(array == 10)
        starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)
        carriage = (ends > starts) & (array[np.maximum(ends - 1, 0)] == 13)
        return starts, ends - carriage

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return len(self.bounds[0])


def read_blocks(stream: Bytes, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """All lines of the stream, in blocks of about `size` bytes."""
    rest, line = b"", 1
    skipped: int | None = None  # length of a line too long to be kept, while its end is sought
    first = True
    while data := stream.read(size):
        if first and data.startswith(b"\xef\xbb\xbf"):
            data = data[3:]
        first = False
        if skipped is not None:
            end = data.find(b"\n")
            if end < 0:
                skipped += len(data)
                continue
            yield Block(rest + b"\n", line, skipped + end)
            rest, data, line, skipped = b"", data[end + 1 :], line + 1, None
        data = rest + data
        cut = data.rfind(b"\n") + 1
        block, rest = data[:cut], data[cut:]
        if block:
            whole = Block(block, line)
            yield whole
            line += whole.lines
        if len(rest) > MAX_KEPT_BYTES:
            skipped, rest = len(rest), rest[:MAX_KEPT_BYTES]
    if rest:
        yield Block(rest + b"\n", line, skipped)


@dataclass(frozen=True)
class Shape:
    """What parts a line into columns, and which lines are none."""

    delimiter: str
    comment: str | None
    skip_lines: tuple[str, ...]
    trim: bool = False
    """Whether blanks around values are taken away."""


def sift(block: Block, shape: Shape) -> tuple[npt.NDArray[np.bool_], list[Fault]]:
    """Which lines may hold records, and the faults of those that are no text at all.

    Blank lines, comments and sentinels are left out without a word. Rows are line indices.
    """
    starts, ends = block.bounds
    data, n = block.data, len(starts)
    keep = np.ones(n, bool)
    faults: list[Fault] = []

    def drop(rows: npt.NDArray[np.intp], reason: str | None, expected: str | None) -> None:
        if reason is not None:
            faults.extend(Fault(int(r), None, reason, expected) for r in rows if keep[r])
        keep[rows] = False

    lengths = ends - starts
    if block.long is not None:
        reason = (
            f"the line has {block.long:,} bytes, of which the first {MAX_KEPT_BYTES:,} are kept"
        )
        drop(np.arange(n), reason, f"at most {MAX_LINE_BYTES:,} bytes")
    if lengths.max(initial=0) > MAX_LINE_BYTES:
        for row in np.flatnonzero(lengths > MAX_LINE_BYTES):
            reason = f"the line has {lengths[row]:,} bytes"
            drop(np.array([row]), reason, f"at most {MAX_LINE_BYTES:,} bytes")
    drop(np.flatnonzero(lengths == 0), None, None)
    for text in shape.skip_lines:
        drop(_lines_with(data, text.encode(), starts, ends, whole=True), None, None)
    if shape.comment:
        drop(_lines_with(data, shape.comment.encode(), starts, ends, whole=False), None, None)
    array = np.frombuffer(data, np.uint8)
    returns = np.flatnonzero(array == 13)
    alone = returns[array[returns + 1] != 10]  # a block ends with a line end, never with a return
    if len(alone):
        rows = np.unique(np.searchsorted(starts, alone, "right") - 1)
        drop(rows, "a carriage return stands inside the line", "lines that end with LF or CRLF")
    if b"\x00" in data:
        drop(_lines_of(data, re.compile(b"\x00"), starts), "a NUL byte stands in the line", "text")
    if b'"' in data:
        suspects = _oddly_quoted(array, starts, shape.delimiter)
        wrong = [r for r in suspects if not _is_quoted_well(data[starts[r] : ends[r]], shape)]
        drop(np.array(wrong, np.intp), _QUOTES, "a value in quotes stands alone between delimiters")
    try:
        data.decode()
    except UnicodeDecodeError:
        suspects = _lines_of(data, re.compile(rb"[\x80-\xff]+"), starts)
        wrong = [r for r in suspects if not _is_utf8(data[starts[r] : ends[r]])]
        drop(np.array(wrong, np.intp), "the line is no UTF-8 text", "UTF-8")
    return keep, faults


def _lines_with(
    data: bytes,
    text: bytes,
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    whole: bool,
) -> npt.NDArray[np.intp]:
    """Indices of the lines that begin with the text, or are it."""
    if text not in data:
        return np.zeros(0, np.intp)
    rows = _lines_of(data, re.compile(b"(?m)^" + re.escape(text)), starts)
    if whole:
        rows = rows[[data[starts[r] : ends[r]] == text for r in rows]]
    return rows


def _lines_of(
    data: bytes, pattern: re.Pattern[bytes], starts: npt.NDArray[np.int64]
) -> npt.NDArray[np.intp]:
    """Indices of the lines in which the pattern is found, each once."""
    at = np.array([match.start() for match in pattern.finditer(data)], np.int64)
    rows: npt.NDArray[np.intp] = np.unique(np.searchsorted(starts, at, "right") - 1)
    return rows


def _oddly_quoted(
    array: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64], delimiter: str
) -> npt.NDArray[np.intp]:
    """Lines whose quotation marks are not simply one before and one behind a value."""
    at = np.flatnonzero(array == 34)
    rows = np.searchsorted(starts, at, "right") - 1
    first = np.concatenate([[True], rows[1:] != rows[:-1]])
    place = np.arange(len(at)) - np.maximum.accumulate(np.where(first, np.arange(len(at)), 0))
    before = np.where(at > 0, array[at - 1], 10)
    opens = (before == 10) | (before == ord(delimiter))
    closes = np.isin(array[at + 1], [10, 13, ord(delimiter)])  # a block ends with a line end
    last = np.concatenate([first[1:], [True]])
    odd = np.where(place % 2 == 0, ~opens | last, ~closes)
    found: npt.NDArray[np.intp] = np.unique(rows[odd])
    return found


def _is_quoted_well(line: bytes, shape: Shape) -> bool:
    """The slow and certain answer, for one line: the Arrow reader would take `"2"5` for 25."""
    try:
        next(csv.reader([line.decode("latin-1")], delimiter=shape.delimiter, strict=True), None)
    except csv.Error:
        return False
    return True


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def split_line(line: bytes, delimiter: str) -> list[str]:
    """The cells of one line, such as a header."""
    return next(csv.reader([line.decode()], delimiter=delimiter), [])


@dataclass(frozen=True)
class Cells:
    """Columns of strings by position (those asked for), and the line index of each row."""

    columns: dict[int, pa.Array]
    lines: npt.NDArray[np.int64]
    faults: list[Fault]


def split_lines(
    block: Block, keep: npt.NDArray[np.bool_], width: int, wanted: Sequence[int], shape: Shape
) -> Cells:
    """Part the lines that `sift` kept into `width` columns; one with fewer or more is a fault."""
    rows = np.flatnonzero(keep).astype(np.int64)
    if len(rows) == 0:
        return Cells({at: pa.array([], pa.string()) for at in wanted}, rows, [])
    data = block.data
    if len(rows) < len(keep):
        lengths = np.diff(np.concatenate([block.bounds[0], [len(data)]]))
        data = np.frombuffer(data, np.uint8)[np.repeat(keep, lengths)].tobytes()
    bad: list[tuple[int, int]] = []

    def refuse(row: Any) -> str:
        bad.append((row.number - 1, row.actual_columns))
        return "skip"

    table = pyarrow.csv.read_csv(
        pa.BufferReader(data),
        pyarrow.csv.ReadOptions(
            column_names=[str(i) for i in range(width)], use_threads=False, block_size=len(data) + 1
        ),
        pyarrow.csv.ParseOptions(
            delimiter=shape.delimiter, ignore_empty_lines=False, invalid_row_handler=refuse
        ),
        pyarrow.csv.ConvertOptions(
            column_types={str(i): pa.string() for i in range(width)},
            include_columns=[str(i) for i in wanted],
            strings_can_be_null=False,
        ),
    )
    if table.num_rows + len(bad) != len(rows):
        # Only an open quotation mark could swallow a line, and `sift` keeps none.
        raise Broken(
            f"{len(rows):,} lines were parted into {table.num_rows + len(bad):,} rows",
            place=f"the lines behind line {block.first_line:,}",
        )
    columns = {at: _one(table.column(str(at))) for at in wanted}
    if shape.trim:
        columns = {at: pc.utf8_trim_whitespace(column) for at, column in columns.items()}
    good = np.ones(len(rows), bool)
    good[[row for row, _ in bad]] = False
    faults = [
        Fault(
            int(rows[row]),
            None,
            f"the line has {count} column{'s' * (count != 1)}, not {width}",
            f"{width} columns parted by {shape.delimiter!r}",
        )
        for row, count in bad
    ]
    return Cells(columns, rows[good], faults)


def _one(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
