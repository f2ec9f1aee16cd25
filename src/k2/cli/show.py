"""Answers on stdout, as a table for people or in a format for programs; talk goes to stderr."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from k2.errors import BadInput

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

    from k2.query import Answer

_SUFFIXES: Final[Mapping[str, str]] = {
    ".json": "json",
    ".ndjson": "ndjson",
    ".csv": "csv",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".parquet": "parquet",
}
_BINARY: Final = ("arrow", "parquet")
_GAP: Final = "  "

Styled = Callable[[Mapping[str, Any]], str | None]
"""The colour of a row, by its values as text; None for none."""


@dataclass(frozen=True)
class Output:
    """Where an answer goes, and in which format; `format` is one of `k2.encode.FORMATS` or
    `table`.
    """

    format: str
    path: Path | None = None

    @property
    def is_table(self) -> bool:
        """Whether people read it."""
        return self.format == "table"

    @property
    def on_terminal(self) -> bool:
        """Whether it is a table that goes to a terminal."""
        return self.is_table and self.path is None and sys.stdout.isatty()

    def write(
        self,
        answer: "Answer",
        *,
        columns: Sequence[str] = (),
        document: Mapping[str, Any] | None = None,
        limit: int | None = None,
        style: Styled | None = None,
    ) -> None:
        """Write the answer; its notes go to stderr.

        `columns` are those that a table shows (all, if empty), `document` is what `--json` writes
        in place of the envelope, `limit` the one that the envelope tells, `style` colours rows.
        """
        if self.is_table:
            width = shutil.get_terminal_size().columns if self.on_terminal else None
            lines = table_lines(answer.table, columns=columns, width=width, style=style)
            self._write(_encoded(lines, self.on_terminal))
        else:
            self._write(self._parts(answer, document, limit))
        notes = answer.meta.get("notes")
        for note in notes if isinstance(notes, list) else ():
            say(str(note))
        if self.is_table and "milliseconds" in answer.meta:
            rows = answer.table.num_rows
            took = float(str(answer.meta["milliseconds"]))
            say(f"{rows:,} {'row' if rows == 1 else 'rows'} in {took:,.0f} ms", dim=True)

    def _parts(
        self, answer: "Answer", document: Mapping[str, Any] | None, limit: int | None
    ) -> Iterator[bytes]:
        from k2 import encode

        if self.format == "json" and document is not None:
            import orjson

            yield orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
        elif self.format == "json":
            yield from encode.json_parts(answer, limit)
            yield b"\n"
        else:
            yield from encode.FORMATS[self.format].parts(answer)

    def _write(self, parts: Iterator[bytes]) -> None:
        if self.path is not None:
            _write_file(self.path, parts)
            return
        if self.format in _BINARY and sys.stdout.isatty():
            raise BadInput(
                f"{self.format} is not for a terminal", hint="name a file with -o, or use a pipe"
            )
        # Whatever was printed as text so far must come before these bytes.
        sys.stdout.flush()
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


def choose_output(format_name: str | None, path: Path | None) -> Output:
    """The output that the options ask for; a file's suffix says its format if no option does."""
    if path is not None and str(path) == "-":
        path = None
    if format_name is None and path is not None:
        format_name = _SUFFIXES.get(path.suffix.lower())
    return Output(format_name or "table", path)


def say(text: str, *, dim: bool = False, colour: str | None = None) -> None:
    """Tell something on stderr."""
    click.secho(text, err=True, dim=dim or None, fg=colour, color=_colours(sys.stderr))


def table_lines(
    table: "pa.Table",
    *,
    columns: Sequence[str] = (),
    width: int | None = None,
    style: Styled | None = None,
) -> Iterator[str]:
    """A header and a line per row: numbers at the right by their decimal point, nulls as `-`.

    Columns that hold nothing but nulls are left out unless `columns` names them, and so are those
    at the right that do not fit into `width` cells; a last line says which.
    """
    from k2 import encode

    texts = encode.to_text(table)
    named = [name for name in columns if name in texts.columns]
    shown = named or [name for name in texts.columns if _holds_anything(texts[name])]
    numbers = {texts.columns[i] for i, field in enumerate(table.schema) if _is_number(field.type)}
    cells = {name: _cells(texts[name], name, right=name in numbers) for name in shown}
    fitting = _fitting(cells, width)
    yield click.style(_GAP.join(cells[name][0] for name in fitting).rstrip(), bold=True)
    rows = zip(*(cells[name][1:] for name in fitting), strict=True)
    for number, row in enumerate(rows):
        line = _GAP.join(row).rstrip()
        colour = style(texts.row(number, named=True)) if style else None
        yield click.style(line, fg=colour) if colour else line
    if left_out := [name for name in shown if name not in fitting]:
        yield click.style(f"not shown for want of room: {', '.join(left_out)}", dim=True)


def _holds_anything(column: "pl.Series") -> bool:
    return column.null_count() < len(column) or len(column) == 0


def _is_number(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _cells(column: "pl.Series", name: str, *, right: bool) -> list[str]:
    """The header and each value, all of one width."""
    import polars as pl
    from rich.cells import cell_len

    # Data may hold anything, an escape sequence for the terminal included.
    texts = column.cast(pl.String).str.replace_all(r"\p{C}", "·").fill_null("-").to_list()
    if right:
        places = max((len(_fraction(text)) for text in texts), default=0)
        texts = [text + " " * (places - len(_fraction(text))) for text in texts]
    every = [name, *texts]
    width = max(map(cell_len, every))
    pads = [" " * (width - cell_len(text)) for text in every]
    return [pad + text if right else text + pad for text, pad in zip(every, pads, strict=True)]


def _fraction(text: str) -> str:
    """The decimal point and what follows it; nothing for a whole number."""
    return "".join(text.partition(".")[1:]) if "e" not in text else ""


def _fitting(cells: Mapping[str, list[str]], width: int | None) -> list[str]:
    from rich.cells import cell_len

    names, used = list(cells), 0
    for number, name in enumerate(names):
        used += cell_len(cells[name][0]) + (len(_GAP) if number else 0)
        if width is not None and used > width and number:
            return names[:number]
    return names


def _encoded(lines: Iterator[str], on_terminal: bool) -> Iterator[bytes]:
    keep_colours = on_terminal and _colours(sys.stdout)
    for line in lines:
        yield (line if keep_colours else click.unstyle(line)).encode() + b"\n"


def _colours(stream: Any) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _write_file(path: Path, parts: Iterator[bytes]) -> None:
    # Under its name stands the whole answer or what was there before, never half of one.
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("wb") as file:
            for part in parts:
                file.write(part)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
