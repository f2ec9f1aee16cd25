"""Batches in a format, one after the other: each as bytes that can be written at once.

Comes in: batches with the same columns, and at the end the position behind them. Goes out: what
follows the bytes of the batch before.
"""

import io
from collections.abc import Sequence
from typing import Final, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from k2 import encode
from k2.cli.show import Output
from k2.query import Answer

_SAMPLE_ROWS: Final = 50
"""Rows before those of a batch that decide with it how wide a table's columns are."""


class Flow(Protocol):
    """One answer in the making. `add` is called for each batch, then `end`, once."""

    def add(self, records: pa.Table, position: str) -> bytes:
        """What the records become; `position` is that behind them."""

    def end(self, position: str | None) -> bytes:
        """What stands behind the last batch."""


def flow_of(output: Output, columns: pa.Schema, shown: Sequence[str]) -> Flow:
    """The flow in the format of the output; `shown` are the columns of a table."""
    match output.format:
        case "json":
            return _Json()
        case "csv":
            return _Csv(columns)
        case "arrow":
            return _Arrow(columns)
        case "parquet":
            return _Parquet(columns)
        case "table":
            return _Table(columns, shown)
        case _:
            return _Ndjson()


class _Ndjson:
    def add(self, records: pa.Table, position: str) -> bytes:
        return b"".join(encode.ndjson_parts(Answer(records, {})))

    def end(self, position: str | None) -> bytes:
        return b""


class _Csv:
    def __init__(self, columns: pa.Schema) -> None:
        self._header = b"".join(encode.csv_parts(Answer(columns.empty_table(), {})))

    def add(self, records: pa.Table, position: str) -> bytes:
        # The names of columns hold no line break, so that the first one ends the header.
        _, _, lines = b"".join(encode.csv_parts(Answer(records, {}))).partition(b"\n")
        opening, self._header = self._header, b""
        return opening + lines

    def end(self, position: str | None) -> bytes:
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

    def end(self, position: str | None) -> bytes:
        opening = b"" if self._rows else self._opening
        meta = orjson.dumps({"rows": self._rows})
        pages = orjson.dumps({"limit": None, "next": position})
        return opening + b'],"meta":' + meta + b',"pagination":' + pages + b"}\n"


class _Table:
    """A table whose columns keep their width as far as the last rows tell it."""

    def __init__(self, columns: pa.Schema, shown: Sequence[str]) -> None:
        self._shown = shown
        self._last = columns.empty_table()
        self._has_header = False

    def add(self, records: pa.Table, position: str) -> bytes:
        from k2.cli.table import table_lines

        rows = pa.concat_tables([self._last, records])
        header, *lines = table_lines(rows, columns=self._shown)
        self._last = rows.slice(max(0, rows.num_rows - _SAMPLE_ROWS))
        fresh = lines[len(lines) - records.num_rows :]
        if not self._has_header:
            self._has_header = True
            fresh.insert(0, header)
        return _encoded(fresh)

    def end(self, position: str | None) -> bytes:
        from k2.cli.table import table_lines

        if self._has_header:
            return b""
        return _encoded(list(table_lines(self._last, columns=self._shown)))


class _Arrow:
    """An IPC stream; each batch says in its metadata, as `k2.position`, what lies behind it."""

    def __init__(self, columns: pa.Schema) -> None:
        self._sink = _Sink()
        self._writer = pa.ipc.new_stream(self._sink, columns)

    def add(self, records: pa.Table, position: str) -> bytes:
        for batch in records.combine_chunks().to_batches():
            self._writer.write_batch(batch, custom_metadata={"k2.position": position})
        return self._sink.taken()

    def end(self, position: str | None) -> bytes:
        self._writer.close()
        return self._sink.taken()


class _Parquet:
    """A file of which each batch is a row group."""

    def __init__(self, columns: pa.Schema) -> None:
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(
            self._sink, columns, compression="zstd", store_decimal_as_integer=True
        )

    def add(self, records: pa.Table, position: str) -> bytes:
        self._writer.write_table(records)
        return self._sink.taken()

    def end(self, position: str | None) -> bytes:
        if position is not None:
            self._writer.add_key_value_metadata({"k2.next": position})
        self._writer.close()
        return self._sink.taken()


class _Sink(io.RawIOBase):
    """Takes bytes until they are fetched, and counts them on from the first: a writer asks where
    in the file it is.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._at = 0

    def writable(self) -> bool:
        return True

    def write(self, part: object) -> int:
        taken = bytes(memoryview(part))  # type: ignore[arg-type]  # any buffer
        self._held += taken
        self._at += len(taken)
        return len(taken)

    def tell(self) -> int:
        return self._at

    def taken(self) -> bytes:
        """What was written since it was asked for last."""
        found = bytes(self._held)
        self._held.clear()
        return found


def _encoded(lines: Sequence[str]) -> bytes:
    import click

    return b"".join(click.unstyle(line).encode() + b"\n" for line in lines)
