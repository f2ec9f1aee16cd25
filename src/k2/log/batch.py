"""A batch as it lies in a file: the datums, their lengths behind them, compressed, with a checksum.

Columns in, bytes out, and back. Keys are left out: a datum holds its symbol.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.errors import BadInput, Broken, Refused

BLOB_BYTES: Final = 1 << 20
"""A blob is closed once its datums reach this: what a reader decompresses to see one of them."""

BLOB_MESSAGES: Final = 1 << 16

MESSAGE_BYTES: Final = 1 << 28
"""The largest message: SQLite takes blobs up to 10^9 bytes, and memory has to hold a few."""

# LZ4 needs 0.12 us to compress and 0.03 us to expand a trade of 90 bytes, zstd (level 1) 0.21 and
# 0.08 us for 26 instead of 36 bytes: at 500,000 trades/s the processor is the narrower place.
_CODEC: Final = pa.Codec("lz4_raw")


@dataclass(frozen=True)
class Blob:
    """Messages of one schema, ready to be stored: `count` of them, `body` as it is kept.

    `datum_bytes` is the sum of their lengths, `width` the bytes that one length takes.
    """

    count: int
    schema_id: int
    datum_bytes: int
    width: int
    body: bytes

    def checksum(self, partition_id: int, first_offset: int, appended_at: int) -> int:
        """CRC-32 over the body, then over everything that the row says of it."""
        facts = _FACTS.pack(
            partition_id,
            first_offset,
            appended_at,
            self.schema_id,
            self.count,
            self.datum_bytes,
            self.width,
        )
        return zlib.crc32(facts, zlib.crc32(self.body))


_FACTS: Final = struct.Struct("<7q")


def pack(values: pa.Array, schema_id: int) -> list[Blob]:
    """The messages as blobs of about 1 MiB, in order; none for no messages.

    `values` is binary or large_binary without nulls, else `BadInput`. Raises `Refused` for a
    message of more than 256 MiB.
    """
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        raise BadInput("messages must be binary", found=str(values.type))
    if values.null_count:
        raise BadInput("a message cannot be null", found=f"{values.null_count} nulls")
    if len(values) == 0:
        return []
    offsets = _offsets(values)
    lengths = np.diff(offsets)
    if (longest := int(lengths.max())) > MESSAGE_BYTES:
        raise Refused(
            "the message is too long",
            found=f"{longest:,} bytes",
            expected=f"at most {MESSAGE_BYTES:,} bytes",
        )
    memory = memoryview(values.buffers()[2]) if offsets[-1] else memoryview(b"")
    blobs = []
    for start, stop in _cuts(offsets):
        low, high = int(offsets[start]), int(offsets[stop])
        part = lengths[start:stop]
        narrow = part.astype(np.min_scalar_type(int(part.max())))
        raw = b"".join((memory[low:high], narrow.data))
        body = _CODEC.compress(raw, asbytes=True)
        blobs.append(Blob(stop - start, schema_id, high - low, narrow.itemsize, body))
    return blobs


def _offsets(values: pa.Array) -> npt.NDArray[Any]:
    kind = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    every: npt.NDArray[Any] = np.frombuffer(values.buffers()[1], kind)
    return every[values.offset : values.offset + len(values) + 1]


def _cuts(offsets: npt.NDArray[Any]) -> Iterator[tuple[int, int]]:
    start, count = 0, len(offsets) - 1
    while start < count:
        full = int(np.searchsorted(offsets, int(offsets[start]) + BLOB_BYTES))
        stop = min(full, start + BLOB_MESSAGES, count)
        yield start, stop
        start = stop


@dataclass(frozen=True)
class Unpacked:
    """The messages of one blob: `lengths` and the bytes of all, one behind the other."""

    lengths: npt.NDArray[Any]
    datums: pa.Buffer

    def skip(self, messages: int) -> "Unpacked":
        """The same without the first `messages`."""
        start = int(self.lengths[:messages].sum(dtype=np.int64))
        return Unpacked(self.lengths[messages:], self.datums.slice(start))


def unpack(blob: Blob, place: str) -> Unpacked:
    """The messages of a blob whose checksum was found right.

    Raises `Broken` where they cannot be what was packed all the same.
    """
    size = blob.datum_bytes + blob.count * blob.width
    try:
        raw = _CODEC.decompress(blob.body, decompressed_size=size)
        lengths = np.frombuffer(raw, f"<u{blob.width}", blob.count, offset=blob.datum_bytes)
    except (OSError, ValueError, TypeError) as error:
        raise Broken("the batch cannot be expanded", place=place, found=str(error)) from error
    if int(lengths.sum(dtype=np.int64)) != blob.datum_bytes:
        raise Broken("the lengths of the batch's messages do not add up", place=place)
    return Unpacked(lengths, raw.slice(0, blob.datum_bytes))


def join(parts: Sequence[Unpacked]) -> pa.BinaryArray:
    """The messages of all parts, in order, as one array (less than 2 GiB of them)."""
    count = sum(len(part.lengths) for part in parts)
    offsets = np.zeros(count + 1, np.int32)
    lengths = parts[0].lengths if len(parts) == 1 else np.concatenate([p.lengths for p in parts])
    np.cumsum(lengths, out=offsets[1:])
    datums = parts[0].datums if len(parts) == 1 else pa.py_buffer(b"".join(p.datums for p in parts))
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(offsets), datums])
