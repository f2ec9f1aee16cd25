"""Offsets of many records in few bytes: the distance from each to the next.

Comes in: ascending offsets. Goes out: bytes that ledgers keep, and the offsets again.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from k2.errors import Broken

Offsets = npt.NDArray[np.int64]

_LOW: Final = 0x7F
_MORE: Final = 0x80


def to_distances(offsets: Offsets) -> bytes:
    """From each offset to the next, as unsigned varints (LEB128)."""
    left = np.diff(offsets).astype(np.uint64)
    if (left <= _LOW).all():
        return left.astype(np.uint8).tobytes()
    # A column of bytes for each seven bits; rows are read out as far as they go.
    width = 1 + max(0, (int(left.max()).bit_length() - 1) // 7)
    groups = (left[:, None] >> np.arange(0, 7 * width, 7, dtype=np.uint64)) & np.uint64(_LOW)
    used = np.maximum(1, width - (groups[:, ::-1] != 0).argmax(axis=1))
    used[left == 0] = 1
    at = np.arange(width)
    marked = groups.astype(np.uint8) | np.where(at < used[:, None] - 1, _MORE, 0).astype(np.uint8)
    return marked[at < used[:, None]].tobytes()


def from_distances(first: int, raw: bytes, place: str) -> Offsets:
    """The offsets again. Raises `Broken` for bytes that `to_distances` did not write."""
    data = np.frombuffer(raw, np.uint8)
    if not len(data):
        return np.array([first], np.int64)
    ends = np.flatnonzero(data < _MORE)
    if not len(ends) or ends[-1] != len(data) - 1:
        raise Broken("the offsets in a ledger are cut off", place=place)
    if len(ends) == len(data):
        steps = data.astype(np.int64)
    else:
        starts = np.append(0, ends[:-1] + 1)
        shift = 7 * (np.arange(len(data)) - np.repeat(starts, ends - starts + 1))
        parts = (data & _LOW).astype(np.int64) << shift
        steps = np.add.reduceat(parts, starts)
    return np.cumsum(np.append(first, steps))
