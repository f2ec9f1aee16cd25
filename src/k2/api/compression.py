"""Bodies made smaller on their way, where the client says that it takes that: gzip or zstd.

Only text is: Arrow and Parquet answers go as they are.
"""

import zlib
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import pyarrow as pa

from k2.flow import Sink

LEAST_BYTES: Final = 32_768
"""Shorter bodies are sent as they are: it would take longer than it saves."""

TEXTS: Final = ("json", "ndjson", "csv")
"""The formats that are text."""

_GZIP_WINDOW: Final = 31
"""What makes zlib write gzip, with its largest window."""


class Compressor(Protocol):
    """One body in the making."""

    def add(self, part: bytes) -> bytes:
        """What can be sent once this part is there."""

    def end(self) -> bytes:
        """What stands behind the last part."""


class _Gzip:
    def __init__(self) -> None:
        # The quickest level: others save a tenth, and take three times as long.
        self._made = zlib.compressobj(1, zlib.DEFLATED, _GZIP_WINDOW)

    def add(self, part: bytes) -> bytes:
        return self._made.compress(part)

    def end(self) -> bytes:
        return self._made.flush()


class _Zstd:
    def __init__(self) -> None:
        self._sink = Sink()
        self._made = pa.CompressedOutputStream(pa.PythonFile(self._sink, "w"), "zstd")

    def add(self, part: bytes) -> bytes:
        self._made.write(part)
        return self._sink.taken()

    def end(self) -> bytes:
        self._made.close()
        return self._sink.taken()


CODINGS: Final[dict[str, Callable[[], Compressor]]] = {"zstd": _Zstd, "gzip": _Gzip}
"""Those that are spoken, the better first."""


def coding_for(accepted: str, name: str) -> str | None:
    """Which of `CODINGS` a body in a format is sent in, by what `Accept-Encoding` says; None: as it
    is.
    """
    if name not in TEXTS:
        return None
    taken = {}
    for part in accepted.lower().split(","):
        coding, *parameters = (piece.strip() for piece in part.split(";"))
        taken[coding] = not any(p.replace(" ", "") in _NEVER for p in parameters)
    return next((coding for coding in CODINGS if taken.get(coding)), None)


_NEVER: Final = ("q=0", "q=0.0", "q=0.00", "q=0.000")


def compressed(parts: Iterator[bytes], coding: str) -> Iterator[bytes]:
    """The parts of a body in a coding; what is empty is left out."""
    made = CODINGS[coding]()
    for part in parts:
        if small := made.add(part):
            yield small
    yield made.end()
