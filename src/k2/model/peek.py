"""The symbol of each message, seen without decoding it: what its record begins with.

Whoever leaves most messages alone learns which in a sixth of the time that decoding them takes.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

_LONGEST: Final = 63
"""Bytes of a text whose length takes one byte: Avro writes it as a zigzag varint."""
_WORD: Final = 8


@dataclass(frozen=True)
class Peeked:
    """`symbols[codes[i]]` is the text that message i begins with; a code of -1 where none can be
    seen: it is longer than 63 bytes, or no text of Avro's.
    """

    codes: npt.NDArray[np.int32]
    symbols: list[str]


def peek(values: pa.BinaryArray) -> Peeked:
    """What each of these datums (binary, without nulls) begins with, as an Avro string."""
    count = len(values)
    if not count:
        return Peeked(np.zeros(0, np.int32), [])
    every = np.frombuffer(values.buffers()[1], np.int32)
    offsets = every[values.offset : values.offset + count + 1].astype(np.int64)
    data = _padded(values.buffers()[2])
    head = data[offsets[:-1]]
    length = (head >> 1).astype(np.int64)
    seen = (head < 128) & (head & 1 == 0) & (length < np.diff(offsets))
    # The texts as words of eight bytes, what lies behind their ends masked out.
    words = max(1, -(-int(length[seen].max(initial=1)) // _WORD))
    window: npt.NDArray[Any] = np.ndarray((len(data) - _WORD + 1,), "<u8", data, strides=(1,))
    keys = np.zeros((count, words + 1), np.uint64)
    for number in range(words):
        inside = np.clip(length - number * _WORD, 0, _WORD)
        keys[:, number] = window[offsets[:-1] + 1 + number * _WORD] & _MASKS[inside]
    keys[:, words] = np.where(seen, length, _LONGEST + 1)
    wide = pa.binary(keys.shape[1] * _WORD)
    encoded = pa.Array.from_buffers(wide, count, [None, pa.py_buffer(keys)]).dictionary_encode()
    texts = [_text(key) for key in encoded.dictionary.to_pylist()]
    known = np.array([text is not None for text in texts])
    codes = encoded.indices.to_numpy()
    return Peeked(np.where(known[codes], codes, -1).astype(np.int32), [t or "" for t in texts])


def _padded(raw: pa.Buffer | None) -> npt.NDArray[np.uint8]:
    """With room behind the end: words are read wherever a text begins."""
    size = raw.size if raw is not None else 0
    data = np.zeros(size + _LONGEST + 2 * _WORD, np.uint8)
    if raw is not None:
        data[:size] = np.frombuffer(raw, np.uint8)
    return data


def _text(key: bytes) -> str | None:
    length = int.from_bytes(key[-_WORD:], "little")
    if length > _LONGEST:
        return None
    try:
        return key[:length].decode()
    except UnicodeDecodeError:
        return None


_MASKS: Final = np.array([(1 << 8 * size) - 1 for size in range(_WORD + 1)], np.uint64)
"""The first n bytes of a word."""
