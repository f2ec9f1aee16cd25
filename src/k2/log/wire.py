"""What Kafka's clients agree on: which partition a key goes to, and Confluent's five bytes.

Columns in, columns out; no I/O.
"""

from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.log.port import NOT_WIRE_FORMAT

_HEADER_BYTES: Final = 5
_SEED: Final = 0x9747B28C
_M: Final = 0x5BD1E995
_MASK: Final = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """MurmurHash2 (Austin Appleby) of 32 bits with Kafka's seed, unsigned."""
    length = len(key)
    hashed = _SEED ^ length
    whole = length & ~3
    for start in range(0, whole, 4):
        word = int.from_bytes(key[start : start + 4], "little") * _M & _MASK
        word = (word ^ word >> 24) * _M & _MASK
        hashed = hashed * _M & _MASK ^ word
    if rest := key[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _M & _MASK
    hashed = (hashed ^ hashed >> 13) * _M & _MASK
    return hashed ^ hashed >> 15


# Symbols repeat from one batch to the next; the bound is for exchanges with a million options.
@lru_cache(maxsize=1 << 16)
def partition_of(key: str, partitions: int) -> int:
    """The partition in which Kafka's default partitioner puts this key (UTF-8)."""
    # Kafka calls it positive, and means the sign bit cleared: not the absolute value.
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def to_wire(datums: pa.BinaryArray, schema_id: int) -> pa.BinaryArray:
    """Each datum behind Confluent's header: byte 0, then the schema id, 4 bytes big-endian."""
    header = pa.scalar(b"\0" + schema_id.to_bytes(4, "big"), datums.type)
    return pc.binary_join_element_wise(header, datums, pa.scalar(b"", datums.type))


def from_wire(messages: pa.BinaryArray) -> tuple[npt.NDArray[np.int32], pa.BinaryArray]:
    """The schema id of each message and its datum.

    A message that has no such header gets the id NOT_WIRE_FORMAT and stays whole.
    """
    count = len(messages)
    ids = np.full(count, NOT_WIRE_FORMAT, np.int32)
    _, offsets_buffer, bytes_buffer = messages.buffers()
    starts: npt.NDArray[Any] = np.frombuffer(offsets_buffer, np.int32)
    starts = starts[messages.offset : messages.offset + count + 1]
    lengths = np.diff(starts)
    framed = np.flatnonzero(lengths >= _HEADER_BYTES)
    if not len(framed):
        return ids, messages
    every = np.frombuffer(bytes_buffer, np.uint8)
    framed = framed[every[starts[framed]] == 0]
    header = starts[framed, None] + np.arange(_HEADER_BYTES)
    found = np.ascontiguousarray(every[header[:, 1:]]).view(">u4").ravel()
    # No registry gives an id past 2^31: such bytes are no header either.
    plausible = found < 1 << 31
    framed, header = framed[plausible], header[plausible]
    ids[framed] = found[plausible]
    lengths[framed] -= _HEADER_BYTES
    keep = np.ones(len(every), np.bool_)
    keep[header] = False
    offsets = np.zeros(count + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    datums = pa.py_buffer(every[starts[0] : starts[-1]][keep[starts[0] : starts[-1]]])
    return ids, pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), datums])
