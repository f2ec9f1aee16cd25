"""Answers on stdout, as a table for people or in a format for programs; talk goes to stderr."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from k2.cli.logs import is_json, tell_json
from k2.errors import BadInput

if TYPE_CHECKING:
    from k2.cli.table import Styled
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
        style: "Styled | None" = None,
    ) -> None:
        """Write the answer; its notes go to stderr.

        `columns` are those that a table shows (all, if empty), `document` is what `--json` writes
        in place of the envelope, `limit` the one that the envelope tells, `style` colours rows.
        """
        if self.is_table:
            from k2.cli.table import table_lines

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

    def stream(self, parts: Iterator[bytes]) -> None:
        """Write the parts, each as soon as it comes."""
        self._write(parts, at_once=True)

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

    def _write(self, parts: Iterator[bytes], *, at_once: bool = False) -> None:
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
            if at_once:
                sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()


def choose_output(format_name: str | None, path: Path | None) -> Output:
    """The output that the options ask for; a file's suffix says its format if no option does."""
    if path is not None and str(path) == "-":
        path = None
    if format_name is None and path is not None:
        format_name = _SUFFIXES.get(path.suffix.lower())
        if format_name is None:
            raise BadInput(
                f"the name {path.name!r} says no format",
                place="-o",
                expected=f"a name that ends with one of {' '.join(_SUFFIXES)}",
                hint="or an option besides: --csv, --table …",
            )
    return Output(format_name or "table", path)


def say(text: str, *, dim: bool = False, colour: str | None = None) -> None:
    """Tell something on stderr."""
    if is_json():
        tell_json(text)
        return
    if dim or colour:
        text = click.style(text, dim=dim or None, fg=colour)
    click.echo(text, err=True, color=_colours(sys.stderr))


def say_of(part: str, line: str) -> None:
    """Tell a line that a part of K2, a process of its own, has told."""
    if is_json():
        tell_json(line, part=part)
    else:
        say(f"{part}: {line}")


def _encoded(lines: Iterator[str], on_terminal: bool) -> Iterator[bytes]:
    keep_colours = on_terminal and _colours(sys.stdout)
    for line in lines:
        yield (line if keep_colours else click.unstyle(line)).encode() + b"\n"


def _colours(stream: Any) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _write_file(path: Path, parts: Iterator[bytes]) -> None:
    # Under its name stands the whole answer or what was there before, never half of one.
    unfinished = path.with_name(f".{path.name}.part")
    if not path.parent.is_dir():
        raise BadInput("there is no such folder", place=str(path.parent), hint="make it first")
    try:
        with unfinished.open("wb") as file:
            for part in parts:
                file.write(part)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
