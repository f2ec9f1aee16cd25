"""Batches in a format, one after the other: each as bytes that can be written at once.

Comes in: batches with the same columns, and at the end what is told of all of them. Goes out: what
follows the bytes of the batch before. No I/O; the command line and the HTTP interface share it.
"""

import io
from collections.abc import Mapping
from typing import Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from k2 import encode
from k2.query import Answer


class Flow(Protocol):
    """One answer in the making. `add` is called for each batch, then `end`, once."""

    def add(self, records: pa.Table, position: str) -> bytes:
        """What the records become; `position` is that behind them."""

    def end(self, position: str | None, meta: Mapping[str, object] | None = None) -> bytes:
        """What stands behind the last batch: where to go on, and what is told of the answer, as far
        as the format has a place for it.
        """


def flow_of(name: str, columns: pa.Schema, meta: Mapping[str, object] | None = None) -> Flow:
    """The flow in a format (one of `k2.encode.FORMATS`). `meta` is what is known of the answer
    before its first row: Arrow has no place for it behind the last.
    """
    match name:
        case "json":
            return _Json()
        case "csv":
            return _Csv(columns)
        case "arrow":
            return _Arrow(_described(columns, meta))
        case "parquet":
            return _Parquet(columns)
        case _:
            return _Ndjson()


def _described(columns: pa.Schema, meta: Mapping[str, object] | None) -> pa.Schema:
    return columns if meta is None else columns.with_metadata({"k2.meta": orjson.dumps(meta)})


class _Ndjson:
    def add(self, records: pa.Table, position: str) -> bytes:
        return b"".join(encode.ndjson_parts(Answer(records, {})))

    def end(self, position: str | None, meta: Mapping[str, object] | None = None) -> bytes:
        return b""


class _Csv:
    def __init__(self, columns: pa.Schema) -> None:
        self._header = b"".join(encode.csv_parts(Answer(columns.empty_table(), {})))

    def add(self, records: pa.Table, position: str) -> bytes:
        # The names of columns hold no line break, so that the first one ends the header.
        _, _, lines = b"".join(encode.csv_parts(Answer(records, {}))).partition(b"\n")
        opening, self._header = self._header, b""
        return opening + lines

    def end(self, position: str | None, meta: Mapping[str, object] | None = None) -> bytes:
        return self._header


class _Json:
    """The envelope that HTTP answers; `next` is the position."""

    def __init__(self) -> None:
        self._opening = b'{"success":true,"data":['
        self._rows = 0

    def add(self, records: pa.Table, position: str) -> bytes:
        opening, self._opening = self._opening, b","
        self._rows += records.num_rows
        return opening + encode.json_rows(records)

    def end(self, position: str | None, meta: Mapping[str, object] | None = None) -> bytes:
        opening = b"" if self._rows else self._opening
        told = orjson.dumps({**(meta or {}), "rows": self._rows})
        pages = orjson.dumps({"limit": None, "next": position})
        return opening + b'],"meta":' + told + b',"pagination":' + pages + b"}\n"


class _Arrow:
    """An IPC stream; each batch says in its metadata, as `k2.position`, what lies behind it."""

    def __init__(self, columns: pa.Schema) -> None:
        self._sink = Sink()
        self._writer = pa.ipc.new_stream(self._sink, columns)

    def add(self, records: pa.Table, position: str) -> bytes:
        for batch in records.combine_chunks().to_batches():
            self._writer.write_batch(batch, custom_metadata={"k2.position": position})
        return self._sink.taken()

    def end(self, position: str | None, meta: Mapping[str, object] | None = None) -> bytes:
        self._writer.close()
        return self._sink.taken()


class _Parquet:
    """A file of which each batch is a row group."""

    def __init__(self, columns: pa.Schema) -> None:
        self._sink = Sink()
        self._writer = pq.ParquetWriter(
            self._sink, columns, compression="zstd", store_decimal_as_integer=True
        )

    def add(self, records: pa.Table, position: str) -> bytes:
        self._writer.write_table(records)
        return self._sink.taken()

    def end(self, position: str | None, meta: Mapping[str, object] | None = None) -> bytes:
        told = {"k2.meta": orjson.dumps(meta)} if meta is not None else {}
        if position is not None:
            told["k2.next"] = position.encode()
        self._writer.add_key_value_metadata(told)
        self._writer.close()
        return self._sink.taken()


class Sink(io.RawIOBase):
    """Takes bytes until they are fetched, and counts them on from the first: a writer asks where
    in the file it is.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, part: object) -> int:
        """Take the bytes of any buffer."""
        taken = bytes(memoryview(part))  # type: ignore[arg-type]  # any buffer
        self._held += taken
        self._at += len(taken)
        return len(taken)

    def tell(self) -> int:
        """How many bytes were ever written."""
        return self._at

    def taken(self) -> bytes:
        """What was written since it was asked for last."""
        found = bytes(self._held)
        self._held.clear()
        return found
