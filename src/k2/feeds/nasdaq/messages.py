"""The bytes of an ITCH file as blocks of whole messages, without an object for each.

Nasdaq TotalView-ITCH 5.0 specification: numbers are big-endian, a time is the nanoseconds since
midnight in New York, a price has four implied decimals; in a file, two bytes before each message
say how long it is. Raises `BadInput`, with the byte, for a file that ends within a message.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from k2.errors import BadInput
from k2.feeds.mapped.content import Bytes

Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]

BLOCK_BYTES: Final = 2**20
_WINDOW: Final = 2**16
_PREFIX: Final = 2

_HEAD: Final = (
    *(("type", "S1"), ("locate", ">u2"), ("tracking", ">u2")),
    *(("time_high", ">u2"), ("time_low", ">u4")),
)
_ADD: Final = (
    *(("order", ">u8"), ("side", "S1"), ("shares", ">u4")),
    *(("stock", "S8"), ("price", ">u4")),
)
_EXECUTED: Final = (("order", ">u8"), ("shares", ">u4"), ("match", ">u8"))
LAYOUTS: Final[Mapping[str, np.dtype[Any]]] = {
    name: np.dtype([*_HEAD, *more])
    for name, more in {
        "R": (
            *(("stock", "S8"), ("category", "S1"), ("status", "S1"), ("round_lot", ">u4")),
            *(("round_lots_only", "S1"), ("issue", "S1"), ("subtype", "S2"), ("authentic", "S1")),
            *(("short_sale", "S1"), ("ipo", "S1"), ("luld_tier", "S1"), ("etp", "S1")),
            *(("etp_leverage", ">u4"), ("inverse", "S1")),
        ),
        "A": _ADD,
        "F": (*_ADD, ("participant", "S4")),
        "E": _EXECUTED,
        "C": (*_EXECUTED, ("printable", "S1"), ("price", ">u4")),
        "D": (("order", ">u8"),),
        "U": (("order", ">u8"), ("new", ">u8"), ("shares", ">u4"), ("price", ">u4")),
        "P": (*_ADD, ("match", ">u8")),
        "Q": (
            *(("shares", ">u8"), ("stock", "S8"), ("price", ">u4")),
            *(("match", ">u8"), ("cross", "S1")),
        ),
        "B": (("match", ">u8"),),
    }.items()
}
"""The messages that become records, or that these need."""

_OTHERS: Final = {
    **{"S": 12, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21},
    **{"X": 23, "I": 50, "N": 20, "O": 48},
}
LENGTHS: Final[Mapping[str, int]] = {n: t.itemsize for n, t in LAYOUTS.items()} | _OTHERS
"""Bytes of each message there is."""


@dataclass(frozen=True)
class Block:
    """Whole messages: where each starts in `content`, its bytes and its type (0 where it has no
    byte). The first has the number `first` in the file, counted from 1.
    """

    content: npt.NDArray[np.uint8]
    starts: Ints
    lengths: Ints
    types: npt.NDArray[np.uint8]
    first: int

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self, kind: str) -> Ints:
        """The places of the messages of a type among the block's, if they are as long as it."""
        return np.flatnonzero((self.types == ord(kind)) & (self.lengths == LENGTHS[kind]))

    def strange(self) -> Ints:
        """The places of messages of no type that there is, or of a length that is not its own.

        None of them are empty: an empty message ends a session.
        """
        right = np.zeros(256, np.int64)
        for kind, length in LENGTHS.items():
            right[ord(kind)] = length
        return np.flatnonzero((self.lengths > 0) & (right[self.types] != self.lengths))

    def records(self, kind: str, rows: Ints) -> Array:
        """The messages at these places, all of one type, as a structured array."""
        layout = LAYOUTS[kind]
        if not len(rows):
            return np.zeros(0, layout)
        whole = self.content[self.starts[rows][:, None] + np.arange(layout.itemsize)]
        return np.ascontiguousarray(whole).view(layout)[:, 0]

    def raw(self, rows: Ints) -> list[bytes]:
        """The messages at these places, as they came."""
        places = zip(self.starts[rows].tolist(), self.lengths[rows].tolist(), strict=True)
        return [self.content[start : start + length].tobytes() for start, length in places]


def times_of(records: Array) -> Ints:
    """Nanoseconds since midnight."""
    high: Ints = records["time_high"].astype(np.int64)
    return (high << 32) | records["time_low"].astype(np.int64)


def read_blocks(content: Bytes, place: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Block]:
    """All messages of the file. What is whole comes before the error that tells of the rest."""
    carried, at, number = b"", 0, 1
    while True:
        fresh = content.read_fully(max(block_bytes - len(carried), 4096))
        data = carried + fresh
        if not data:
            return
        view = np.frombuffer(data, np.uint8)
        starts, used = _frame(view)
        if len(starts):
            lengths = _size_at(view, starts)
            types = np.where(lengths > 0, view[np.minimum(starts + _PREFIX, len(view) - 1)], 0)
            yield Block(view, starts + _PREFIX, lengths, types.astype(np.uint8), number)
        elif not fresh:
            raise BadInput(
                f"the file ends within message {number:,}",
                place=f"{place}, byte {at + len(data):,}",
                hint="fetch the file again; what was read before is not repeated by another load",
            )
        carried, at, number = data[used:], at + used, number + len(starts)


def _frame(view: npt.NDArray[np.uint8]) -> tuple[Ints, int]:
    """Where the whole messages start, with their length, and how many bytes they are together."""
    found, at = [], 0
    while at + _PREFIX <= len(view):
        window = view[at : at + _WINDOW].astype(np.int32)
        # Where the next one would start is known for every byte at once; two, four, eight …
        # messages further on by looking up what was looked up.
        ends = np.arange(len(window) - 1, dtype=np.int32) + _PREFIX
        ends += window[:-1] * 256 + window[1:]
        out = len(ends)
        jump = np.append(np.minimum(ends, out), out)
        starts = np.zeros(1, np.int32)
        while starts[-1] < out:
            starts = np.concatenate([starts, jump[starts]])
            jump = jump[jump]
        starts = starts[starts < out]
        whole = starts[ends[starts] <= len(view) - at]
        if not len(whole):
            break
        found.append(whole.astype(np.int64) + at)
        at += int(ends[whole[-1]])
    return (np.concatenate(found) if found else np.zeros(0, np.int64)), at


def _size_at(view: npt.NDArray[np.uint8], starts: Ints) -> Ints:
    return view[starts].astype(np.int64) * 256 + view[starts + 1]
