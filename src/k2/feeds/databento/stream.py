"""The bytes of a DBN file as blocks of whole records, without an object for each.

Comes in: the file's content. Goes out: what its head says, then blocks in which numpy sees the
records of a type as columns. Raises `BadInput`, with the byte, for what is no DBN, cut or broken.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2.errors import BadInput
from k2.feeds.mapped.content import Bytes

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

BLOCK_BYTES: Final = 2**20
"""A read may take 100 ms at most: these are 20,000 trades, and take a third of that."""
HEAD_BYTES_MAX: Final = 2**28
"""A head tells symbols by the day: this is more than a year of every option."""
TRADE: Final = 0
MBP_1: Final = 1
DEFINITION: Final = 19
SYMBOL_MAPPING: Final = 22

_HEADER_BYTES: Final = 16
_EPOCH: Final = date(1970, 1, 1).toordinal()


@dataclass(frozen=True)
class Interval:
    """The symbol of an instrument from one day (since 1970, UTC) to another, exclusive."""

    instrument_id: int
    first: int
    end: int
    symbol: str


@dataclass(frozen=True)
class Head:
    """What stands before the records. `schema` is None where they are of several.

    `size` is its length in bytes. `types` are the columns of each record type that K2 reads.
    """

    version: int
    dataset: str
    schema: str | None
    ts_out: bool
    intervals: Sequence[Interval]
    size: int
    types: Mapping[int, np.dtype[Any]]
    known: frozenset[int]
    """All record types there are."""


@dataclass(frozen=True)
class Block:
    """Whole records: where each starts in `content`, and its type. The first has the number
    `first` in the file, counted from 1.
    """

    content: npt.NDArray[np.uint8]
    starts: Ints
    types: npt.NDArray[np.uint8]
    first: int

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, kind: int) -> Ints:
        """The places of the records of a type among the block's."""
        return np.flatnonzero(self.types == kind)

    def records(self, rows: Ints, columns: np.dtype[Any]) -> Array:
        """The records at these places, all of one type, as a structured array."""
        if not len(rows):
            return np.zeros(0, columns)
        starts, width = self.starts[rows], columns.itemsize
        step = int(starts[1] - starts[0]) if len(starts) > 1 else width
        if (np.diff(starts) == step).all():
            return np.ndarray(len(starts), columns, self.content.data, int(starts[0]), (step,))
        whole = self.content[starts[:, None] + np.arange(width)]
        return np.ascontiguousarray(whole).view(columns)[:, 0]

    def raw(self, rows: Ints) -> list[bytes]:
        """The bytes of the records at these places."""
        starts = self.starts[rows].tolist()
        return [self.content[at : at + 4 * int(self.content[at])].tobytes() for at in starts]


def read_head(content: Bytes, place: str) -> Head | None:
    """What stands before the records; None for a file without a byte."""
    import databento_dbn as dbn

    start = content.read_fully(8)
    if not start:
        return None
    if start[:3] != b"DBN":
        raise BadInput(
            "this is no DBN file",
            place=f"{place}, byte 0",
            found=repr(start[:4]),
            expected="DBN, and the version",
            hint="a .dbn file begins with its metadata; fragments and the older DBZ do not",
        )
    if len(start) > 3 and not 1 <= start[3] <= dbn.DBN_VERSION:
        raise BadInput(
            f"DBN version {start[3]} is unknown to databento-dbn as it is installed",
            place=f"{place}, byte 3",
            expected=f"1 to {dbn.DBN_VERSION}",
            hint="a newer one may know it: pip install -U databento-dbn",
        )
    length = int.from_bytes(start[4:8], "little")
    rest = content.read_fully(length) if len(start) == 8 and length <= HEAD_BYTES_MAX else b""
    if len(start) < 8 or len(rest) < length <= HEAD_BYTES_MAX:
        raise _cut(place, len(start) + len(rest), "its metadata")
    if length > HEAD_BYTES_MAX:
        raise _broken(place, 4, f"metadata of {length:,} bytes cannot be")
    try:
        told = dbn.Metadata.decode(start + rest)
        return Head(
            start[3],
            told.dataset,
            None if told.schema is None else str(told.schema),
            bool(told.ts_out),
            tuple(_intervals(told)),
            8 + length,
            _types(start[3]),
            frozenset(int(known.value) for known in dbn.RType.variants()),
        )
    except (dbn.DBNError, ValueError) as error:
        raise _broken(place, 8, f"its metadata cannot be read: {error}") from error


def _types(version: int) -> Mapping[int, np.dtype[Any]]:
    """The library's own description of its records in a version."""
    import databento_dbn as dbn

    module = {1: dbn.v1, 2: dbn.v2, 3: dbn.v3}[version]
    return {
        TRADE: np.dtype(module.TradeMsg._dtypes),
        MBP_1: np.dtype(module.MBP1Msg._dtypes),
        DEFINITION: np.dtype(module.InstrumentDefMsg._dtypes),
        SYMBOL_MAPPING: np.dtype(module.SymbolMappingMsg._dtypes),
    }


def _intervals(told: Any) -> Iterator[Interval]:
    """The symbol of each instrument id by days, whichever way the file has them."""
    by_id = str(told.stype_in) == "instrument_id"
    if not by_id and str(told.stype_out) != "instrument_id":
        return
    for name, intervals in told.mappings.items():
        for each in intervals:
            symbol, number = (each["symbol"], name) if by_id else (name, each["symbol"])
            if symbol and number:
                first, end = (
                    each[side].toordinal() - _EPOCH for side in ("start_date", "end_date")
                )
                yield Interval(int(number), first, end, symbol)


def read_blocks(
    content: Bytes, head: Head, place: str, block_bytes: int = BLOCK_BYTES
) -> Iterator[Block]:
    """The records behind the head. What is whole comes before the error that tells of the rest."""
    carried, at, number = b"", head.size, 1
    while True:
        fresh = content.read_fully(max(block_bytes - len(carried), 4096))
        data = carried + fresh
        if not data:
            return
        view = np.frombuffer(data, np.uint8)
        starts, used, wrong = _frame(view)
        types = view[starts + 1]
        misfit = _first_misfit(view, starts, types, head)
        if misfit is not None:
            used = int(starts[misfit])
            wrong = f"a record of type {types[misfit]} and {4 * int(view[used])} bytes cannot be"
            starts, types = starts[:misfit], types[:misfit]
        if len(starts):
            yield Block(view, starts, types, number)
        if wrong is not None:
            raise _broken(place, at + used, wrong)
        if not fresh and not used:
            raise _cut(place, at + len(data), f"record {number + len(starts):,}")
        carried, at, number = data[used:], at + used, number + len(starts)


def _frame(view: npt.NDArray[np.uint8]) -> tuple[Ints, int, str | None]:
    """Where whole records start, how many bytes they are, and what is wrong with the next one.

    A record's first byte is its length in words of 4 bytes.
    """
    length = 4 * int(view[0])
    count = len(view) // length if length >= _HEADER_BYTES else 0
    if count and (view[: count * length : length] == view[0]).all():
        return np.arange(count, dtype=np.int64) * length, count * length, None
    # Records of several lengths: where the next one starts is known for every word at once, and
    # two, four, eight … records further on by looking up what was looked up.
    words = view[: len(view) // 4 * 4 : 4].astype(np.int64)
    ends = np.arange(len(words)) + np.maximum(words, 1)
    jump = np.append(np.minimum(ends, len(words)), len(words))
    starts = np.zeros(1, np.int64)
    while starts[-1] < len(words):
        starts = np.concatenate([starts, jump[starts]])
        jump = jump[jump]
    starts = starts[starts < len(words)]
    short = np.flatnonzero(words[starts] < _HEADER_BYTES // 4)
    if len(short):
        used = int(starts[short[0]])
        return 4 * starts[: short[0]], 4 * used, f"a record of {4 * words[used]} bytes cannot be"
    whole = starts[ends[starts] <= len(words)]
    return 4 * whole, 4 * int(ends[whole[-1]]) if len(whole) else 0, None


def _first_misfit(
    view: npt.NDArray[np.uint8], starts: Ints, types: npt.NDArray[np.uint8], head: Head
) -> int | None:
    """The first record whose type is unknown, or whose length is not that of its type."""
    right = np.zeros(256, np.int64)
    for kind in head.known:
        right[kind] = -1
    for kind, columns in head.types.items():
        right[kind] = columns.itemsize // 4 + 2 * head.ts_out
    wanted = right[types]
    misfits = np.flatnonzero((wanted != -1) & (wanted != view[starts]))
    return int(misfits[0]) if len(misfits) else None


def _cut(place: str, at: int, within: str) -> BadInput:
    return BadInput(
        f"the file ends within {within}",
        place=f"{place}, byte {at:,}",
        hint="fetch the file again; what was read before is not repeated by another load",
    )


def _broken(place: str, at: int, what: str) -> BadInput:
    return BadInput(
        f"the file is broken: {what}",
        place=f"{place}, byte {at:,}",
        hint="fetch the file again; what was read before is not repeated by another load",
    )
