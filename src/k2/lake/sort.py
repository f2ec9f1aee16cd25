"""The order of rows inside a file, and the bucket of a symbol."""

from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.lake.tables import BUCKETS

Indices = npt.NDArray[np.int64]

_TIES: Final = ("timestamp", "timestamp_nanos", "log_partition", "log_offset")


def sort_indices(table: pa.Table) -> Indices:
    """Indices that sort by symbol, then timestamp, timestamp_nanos, partition and offset.

    Records mostly arrive in time order, so a stable sort by symbol alone (radix, on at most 65,536
    symbols) nearly always is the answer; the rows of symbols that it leaves out of order are then
    sorted by every column.
    """
    rank = _ranks(table["symbol"])
    order = np.argsort(rank, kind="stable")
    keys = [_integers(table[name])[order] for name in _TIES if name in table.schema.names]
    rank = rank[order]
    wrong = _descents(keys) & (rank[1:] == rank[:-1])
    if not wrong.any():
        return order
    rows = np.flatnonzero(np.isin(rank, rank[1:][wrong]))
    order[rows] = order[rows][np.lexsort([*(key[rows] for key in reversed(keys)), rank[rows]])]
    return order


def _descents(keys: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
    """Of each row but the first: does it come before its predecessor by the keys?"""
    before = np.zeros(max(len(keys[0]) - 1, 0), dtype=np.bool_)
    equal = np.ones_like(before)
    for key in keys:
        before |= equal & (key[1:] < key[:-1])
        equal &= key[1:] == key[:-1]
        if not equal.any():
            break
    return before


def _ranks(column: pa.ChunkedArray) -> npt.NDArray[np.unsignedinteger]:
    """The place of each row's symbol among the symbols, by their UTF-8 bytes."""
    symbols = column.combine_chunks()
    if not pa.types.is_dictionary(symbols.type):
        symbols = symbols.dictionary_encode()
    names = symbols.dictionary.to_pylist()
    width = np.uint16 if len(names) <= 1 << 16 else np.uint32
    # The dictionary may name a symbol twice: equal symbols need equal ranks.
    places = {name: i for i, name in enumerate(sorted(set(names), key=str.encode))}
    rank = np.fromiter((places[name] for name in names), width, len(names))
    return rank[symbols.indices.to_numpy(zero_copy_only=False)]


def _integers(column: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    plain = column.cast(pa.int64()) if column.type != pa.int64() else column
    found: npt.NDArray[np.int64] = plain.to_numpy()
    return found


@lru_cache(maxsize=1 << 16)
def bucket(symbol: str) -> int:
    """The table partition of a symbol in settled files: Iceberg's `bucket[16]`."""
    return (_murmur3(symbol.encode()) & 0x7FFFFFFF) % BUCKETS


def _murmur3(key: bytes) -> int:
    """MurmurHash3, x86, 32 bit, seed 0, as appendix B of Iceberg's specification wants it."""
    mask = 0xFFFFFFFF
    whole = len(key) // 4 * 4
    value = 0

    def mix(k: int) -> int:
        k = k * 0xCC9E2D51 & mask
        return (k << 15 | k >> 17) * 0x1B873593 & mask

    for i in range(0, whole, 4):
        value ^= mix(int.from_bytes(key[i : i + 4], "little"))
        value = ((value << 13 | value >> 19) * 5 + 0xE6546B64) & mask
    if key[whole:]:
        value ^= mix(int.from_bytes(key[whole:], "little"))
    value ^= len(key)
    value = (value ^ value >> 16) * 0x85EBCA6B & mask
    value = (value ^ value >> 13) * 0xC2B2AE35 & mask
    return value ^ value >> 16
