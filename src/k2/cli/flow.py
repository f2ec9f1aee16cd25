"""Batches as a table that grows, for people, or in a format for programs."""

from collections.abc import Mapping, Sequence
from typing import Final

import pyarrow as pa

from k2.cli.show import Output
from k2.flow import Flow, flow_of

_SAMPLE_ROWS: Final = 50
"""Rows before those of a batch that decide with it how wide a table's columns are."""


def flow_to(output: Output, columns: pa.Schema, shown: Sequence[str]) -> Flow:
    """The flow in the format of the output; `shown` are the columns of a table."""
    return _Table(columns, shown) if output.is_table else flow_of(output.format, columns)


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

    def end(self, position: str | None, meta: Mapping[str, object] | None = None) -> bytes:
        from k2.cli.table import table_lines

        if self._has_header:
            return b""
        return _encoded(list(table_lines(self._last, columns=self._shown)))


def _encoded(lines: Sequence[str]) -> bytes:
    import click

    return b"".join(click.unstyle(line).encode() + b"\n" for line in lines)
