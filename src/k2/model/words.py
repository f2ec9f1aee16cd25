"""Bytes as machine words, for many rows at once: the codec's ground floor.

Comes in: a buffer and a position a row. Goes out: numbers, Arrow buffers. Knows nothing of records.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

U: Final = np.uint64
WINDOW_BYTES: Final = 64
"""Fetching 64 bytes a row takes no longer than fetching 8 (5 ns); reading in them, a tenth."""
TAIL_BYTES: Final = 2 * WINDOW_BYTES
"""Bytes that must be readable behind the last row, so that nothing need look where rows end."""

FIRST_BYTES: Final = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""Masks of the first n bytes of a little-endian word."""
_CONTINUES: Final = U(0x8080808080808080)
_ONE: Final = U(1)


def anywhere(data: Bytes, kind: str) -> npt.NDArray[Any]:
    """A view in which index i is the item that begins at byte i, whatever its alignment."""
    shape = (len(data) - np.dtype(kind).itemsize + 1,)
    return np.ndarray(shape, kind, data, strides=(1,))


class Window:
    """Where each row stands in a buffer, and its next bytes, fetched for all rows at once.

    As long as all rows move by the same number of bytes, moving costs nothing. A row that was
    dropped stands in the zeros with which the buffer begins, and reads zeros from there on.
    """

    def __init__(self, data: Bytes, position: Ints, end: Ints) -> None:
        self._blocks = anywhere(data, f"V{WINDOW_BYTES}")
        self._end = end
        self.go(position)

    def go(self, position: Ints) -> None:
        """Let each row stand at another position (the array is the window's from now on)."""
        self._base, self._offset = position, 0
        self._room = int((self._end - position).min())
        self._fetched: Bytes | None = None

    def position(self) -> Ints:
        """Where each row stands now."""
        return self._base + self._offset

    def move(self, size: Ints | int) -> None:
        """Move on by so many bytes, in all rows or in each."""
        if isinstance(size, int):
            self._offset += size
        else:
            self.go(self._base + (size + self._offset))

    def drop(self, rows: Ints) -> None:
        """Read zeros in these rows from now on."""
        self._base[rows] = 0
        self._room = int((self._end - self._base).min())
        if self._fetched is not None:
            self._fetched[rows] = 0

    def beyond(self) -> Mask | None:
        """Which rows have moved past their end; None where none has."""
        return None if self._offset <= self._room else self.position() > self._end

    def _fetch(self, size: int) -> Bytes:
        if self._fetched is None or self._offset + size > WINDOW_BYTES:
            if self._offset:
                self.go(self.position())
            blocks = self._blocks[self._base]
            self._fetched = blocks.view(np.uint8).reshape(len(blocks), WINDOW_BYTES)
        return self._fetched

    def byte(self) -> Bytes:
        """The next byte of each row."""
        fetched = self._fetch(1)
        return fetched[:, self._offset]

    def word(self, at: int = 0, kind: str = "<u8") -> npt.NDArray[Any]:
        """The word that begins `at` bytes (up to 48) from where each row stands."""
        fetched = self._fetch(at + 8)
        place = self._offset + at
        return np.ndarray((len(fetched),), kind, fetched, place, (WINDOW_BYTES,))

    def same(self, size: int) -> bool:
        """Whether the next `size` bytes (up to 48) are the same in all rows."""
        for at in range(0, size, 8):
            word = self.word(at)
            if size - at < 8:
                word = word & FIRST_BYTES[size - at]
            if (word != word[0]).any():
                return False
        return True


def unpack_varints(word: Words, size: int = 8) -> Words:
    """Drop the continuation bits of varints of up to `size` (8) bytes; bytes behind are zero."""
    if size > 1:
        word = (word & U(0x007F007F007F007F)) | ((word & U(0x7F007F007F007F00)) >> _ONE)
    else:
        word = word & U(0x7F)
    if size > 2:
        word = (word & U(0x00003FFF00003FFF)) | ((word & U(0x3FFF00003FFF0000)) >> U(2))
    if size > 4:
        word = (word & U(0x000000000FFFFFFF)) | ((word & U(0x0FFFFFFF00000000)) >> U(4))
    return word


def varint_ends(word: Words) -> Words:
    """The lowest continuation bit that is not set, alone; 0 where all eight bytes go on."""
    stops = ~word & _CONTINUES
    stops &= -stops
    return stops


def unzigzag(word: Words) -> Ints:
    """Signed numbers from zigzag ones; the array is used up."""
    sign = word & _ONE
    word >>= _ONE
    word ^= -sign
    return word.view(np.int64)


def zigzag(number: Ints) -> Words:
    """Zigzag numbers from signed ones."""
    return ((number << 1) ^ (number >> 63)).view(np.uint64)


def varint(number: int) -> bytes:
    """One number (already zigzag) as a varint."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_CONTINUE: Final = np.array(
    [0x8080808080808080 & ((1 << 8 * max(n - 1, 0)) - 1) for n in range(11)], np.uint64
)
"""Continuation bits of the first eight bytes of a varint of n bytes."""


def pack_varints(number: Words, low: int, high: int) -> tuple[list[Words], Ints | int, int]:
    """Varints of numbers between `low` and `high` (inclusive, already zigzag).

    Returns one word a row (two past 8 bytes), how many of the bytes count, and the most of them.
    """
    least, most = len(varint(low)), len(varint(high))
    size: Ints | int = most
    if least != most:
        size = np.full(len(number), least)
        for smaller in range(least, most):
            size += number >= U(1 << 7 * smaller)
    word = number & U((1 << 56) - 1) if most > 8 else number
    if most > 4:
        word = (word & U(0x0FFFFFFF)) | ((word & U(0x00FFFFFFF0000000)) << U(4))
    if most > 2:
        word = (word & U(0x00003FFF00003FFF)) | ((word & U(0x0FFFC0000FFFC000)) << U(2))
    word = (word & U(0x007F007F007F007F)) | ((word & U(0x3F803F803F803F80)) << _ONE)
    word |= _CONTINUE[size]
    if most <= 8:
        return [word], size, most
    # The ninth byte has bits 56 to 62, the tenth bit 63.
    tenth = np.where(number >= U(1 << 63), U(0x0180), U(0))
    return [word, ((number >> U(56)) & U(0x7F)) | tenth], size, most


# --- Arrow arrays out of them


def validity(present: Mask | None) -> pa.Buffer | None:
    """A mask as Arrow keeps it, a bit a row; None means that all are present."""
    if present is None:
        return None
    return pa.py_buffer(np.packbits(present, bitorder="little"))


def fixed_width(kind: pa.DataType, found: npt.NDArray[Any], present: Mask | None) -> pa.Array:
    """An Arrow array over a contiguous numpy array of the same layout, without a copy."""
    buffers = [validity(present), pa.py_buffer(found)]
    return pa.Array.from_buffers(kind, len(found), buffers)


def to_views(data: Bytes, start: Ints, size: Ints, present: Mask | None = None) -> pa.Array:
    """Slices of one buffer as a `binary_view` array, to be cast (which copies) at once.

    12 bytes behind each start must be readable, and the buffer be shorter than 2 GiB.
    """
    views = np.empty((len(start), 2), np.uint64)
    views[:, 0] = anywhere(data, "<u4")[start]
    views[:, 0] <<= U(32)
    views[:, 0] |= size.view(np.uint64)
    # Up to 12 bytes stand in the view itself; longer ones are buffer 0 and an offset in it.
    inline = size <= 12
    eights = anywhere(data, "<u8")
    if inline.all():
        views[:, 1] = eights[start + 4]
    else:
        np.left_shift(start.view(np.uint64), U(32), out=views[:, 1])
        if inline.any():
            views[inline, 1] = eights[start[inline] + 4]
    return views_over(views, data, present)


def views_over(views: npt.NDArray[np.uint64], data: Bytes, present: Mask | None) -> pa.Array:
    """A `binary_view` array of Arrow's 16-byte structs, as two words each."""
    buffers = [validity(present), pa.py_buffer(views), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary_view(), len(views), buffers)
