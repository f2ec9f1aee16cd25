"""The start of a mapped file: where its columns stand, and what holds for all of its lines.

Comes in: what was asked for and the first lines. Goes out: places of columns, symbol, exchange;
`BadInput` where the file and the mapping do not fit together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np

from k2.errors import BadInput
from k2.feeds.mapped import lines
from k2.feeds.mapped.records import Context
from k2.feeds.mapped.values import Fault
from k2.feeds.mapping import FileMapping, Layout, Source


@dataclass(frozen=True)
class Asked:
    """What a file is to be opened as; `k2.feeds.csv.open_file` says what each means."""

    path: Path
    mapping: FileMapping
    layout: Layout
    symbol: str | None
    exchange: str | None
    instruments: str | Path | None
    skew: timedelta
    block_bytes: int


class Head:
    """What the first lines tell. `context` is None for a file that holds no record.

    `line` is the number of the header line, 0 for none; `width` the count of columns; `wanted` the
    place of each column that the layout uses. The blocks that were looked at are given by `take`.
    """

    def __init__(
        self,
        asked: Asked,
        blocks: Iterator[lines.Block],
        lookup: Callable[[Asked], Mapping[str, str]],
    ) -> None:
        layout = asked.layout
        self.shape = lines.Shape(layout.delimiter, layout.comment, layout.skip_lines, layout.trim)
        self.context: Context | None = None
        self.line = 0
        self._held: list[lines.Block] = []
        first, fault = self._first_lines(asked, blocks, 2)
        if not first and fault is None:
            return
        names = layout.columns
        if fault is not None and not first and layout.header:
            raise _unreadable(asked, *fault)
        if first and (layout.header or (layout.header is None and _looks_like_header(first[0][1]))):
            self.line, cells = first[0]
            names = names if layout.header is None else tuple(cell.strip() for cell in cells)
            first = first[1:]
        self.width = len(names)
        symbol, looked_up = _symbol_of(asked, names)
        self.wanted = _places(asked, names, with_symbol=symbol is None)
        if not first and fault is None:
            return
        symbols = lookup(asked) if looked_up else None
        if symbol is not None and symbols is not None:
            symbol, symbols = _looked_up(asked, symbol, symbols), None
        if fault is not None and not first and asked.mapping.exchange_column:
            raise _unreadable(asked, *fault)
        named = _exchange_cell(asked, self.wanted, first[0][1] if first else ())
        self.context = Context(
            layout,
            asked.mapping.exchange(_exchange_name(asked, named)),
            asked.mapping.name,
            symbol,
            symbols,
            Path(asked.instruments or "").name,
            named,
        )

    def _first_lines(
        self, asked: Asked, blocks: Iterator[lines.Block], n: int
    ) -> tuple[list[tuple[int, list[str]]], tuple[int, Fault] | None]:
        """Number and cells of the first `n` lines that may hold anything; and number and fault of
        the first line that is no text.
        """
        found: list[tuple[int, list[str]]] = []
        fault: tuple[int, Fault] | None = None
        for block in blocks:
            self._held.append(block)
            keep, faults = lines.sift(block, self.shape)
            if faults and fault is None:
                least = min(faults, key=lambda each: each.row)
                fault = (block.first_line + least.row, least)
            starts, ends = block.bounds
            for row in np.flatnonzero(keep)[: n - len(found)]:
                cells = lines.split_line(block.data[starts[row] : ends[row]], self.shape.delimiter)
                found.append((block.first_line + int(row), cells))
            # Only the exchange's own column makes it worth while to look for a line further on:
            # a file of which none can be read must not be held in memory whole.
            if len(found) == n or (fault is not None and not asked.mapping.exchange_column):
                break
        return found, fault

    def take(self) -> lines.Block | None:
        """The next of the blocks that were looked at."""
        return self._held.pop(0) if self._held else None


def _unreadable(asked: Asked, number: int, fault: Fault) -> BadInput:
    """What is wrong with a file whose lines cannot even be rejected: nothing says what they are."""
    return BadInput(
        fault.reason,
        place=f"{asked.path} line {number:,}",
        expected=fault.expected,
        hint=f"no line before it says what this file's {asked.layout.kind} are:"
        " save it as UTF-8 text with LF or CRLF",
    )


def _looks_like_header(cells: list[str]) -> bool:
    """Whether every cell begins with a letter: a record has a number somewhere."""
    return all(cell.strip()[:1].isalpha() for cell in cells if cell.strip())


def _places(asked: Asked, names: Sequence[str], *, with_symbol: bool) -> dict[str, int]:
    """Where each column that the layout uses stands."""
    by_name: dict[str, int] = {}
    for at, name in enumerate(names):
        by_name.setdefault(name.lower(), at)
    needed = asked.layout.used(with_symbol=with_symbol)
    if asked.mapping.exchange_column:
        needed = (*needed, asked.mapping.exchange_column)
    for column in needed:
        if column.lower() not in by_name:
            raise BadInput(
                f"the header line has no column {column!r}",
                place=f"{asked.path}",
                found=", ".join(names)[:200],
                expected=", ".join(needed),
                hint=f"is this a file of {asked.layout.kind}, as the mapping"
                f" {asked.mapping.name!r} knows them?",
            )
    return {column: by_name[column.lower()] for column in needed}


def _symbol_of(asked: Asked, names: Sequence[str]) -> tuple[str | None, bool]:
    """The symbol (or company id) of the whole file, None where each line has its own; and whether
    symbols must be looked up by company id.
    """
    source = asked.layout.fields.get("symbol", Source())
    lowered = {name.lower() for name in names}
    column = next((c for c in source.columns if c.lower() in lowered), None)
    if asked.symbol is not None:
        if column is not None:
            raise BadInput(
                f"the file names its symbols itself, in the column {column!r}",
                place=str(asked.path),
                hint="leave the symbol out",
            )
        return asked.symbol, False
    if source.lookup and asked.instruments is None:
        other = ", or the symbol with --symbol" if source.file else ""
        raise BadInput(
            "the file names companies by their id, not by symbol",
            place=str(asked.path),
            hint=f"name the file that tells their symbols with --instruments{other}",
        )
    if column is not None:
        return None, source.lookup
    if source.value is not None:
        return source.value, False
    if source.columns:
        raise BadInput(
            f"the header line has no column {source.columns[0]!r}, where the mapping"
            f" {asked.mapping.name!r} finds symbols",
            place=str(asked.path),
            found=", ".join(names)[:200],
            hint="if all records belong to one symbol, name it with --symbol",
        )
    match = source.file.search(asked.path.name) if source.file else None
    if match is None:
        raise BadInput(
            "neither the file nor its name says which symbol its records belong to",
            place=str(asked.path),
            expected=f"a name that fits {source.file.pattern}" if source.file else None,
            hint="name the symbol with --symbol",
        )
    return match[1], source.lookup


def _looked_up(asked: Asked, company: str, symbols: Mapping[str, str]) -> str:
    if company.lower() not in symbols:
        raise BadInput(
            f"company id {company!r} stands for no symbol, or several, in {asked.instruments}",
            place=str(asked.path),
            hint="name the symbol with --symbol",
        )
    return symbols[company.lower()]


def _exchange_cell(
    asked: Asked, wanted: Mapping[str, int], cells: Sequence[str]
) -> tuple[str, str] | None:
    """The column that names the exchange, and the name in the first record."""
    column = asked.mapping.exchange_column
    if column is None:
        return None
    return column, cells[wanted[column]].strip() if wanted[column] < len(cells) else ""


def _exchange_name(asked: Asked, named: tuple[str, str] | None) -> str:
    if asked.exchange is not None:
        return asked.exchange
    if named is not None:
        return named[1]
    if asked.mapping.exchange_name is None:
        raise BadInput(
            "neither the file nor its mapping says which exchange the records belong to",
            place=str(asked.path),
            hint="name it with --exchange",
        )
    return asked.mapping.exchange_name
