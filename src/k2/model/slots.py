"""The bytes of rows while they are written: pieces from left to right, then all rows at once.

Every row gets a slot of its own in a buffer, wide enough for the widest; each piece writes its
bytes as words at the row's position and moves it on; what a word writes too much is overwritten by
the next piece, or lies behind the row. In the end the slots are packed.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.model.words import WINDOW_BYTES, Ints, Words, anywhere, to_views

Codes = npt.NDArray[np.integer[Any]]


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


class Row:
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
