"""An answer as lines of a table for people."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import click
import polars as pl
import pyarrow as pa
from rich.cells import cell_len, set_cell_size

from k2 import encode

Styled = Callable[[Mapping[str, Any]], str | None]
"""The colour of a row, by its values as text; None for none."""

_GAP: Final = "  "
_NARROWEST: Final = 20
"""Cells that a column of text is cut to at the least; with less room it is left out."""


def table_lines(
    table: pa.Table,
    *,
    columns: Sequence[str] = (),
    width: int | None = None,
    style: Styled | None = None,
) -> Iterator[str]:
    """A header and a line per row: numbers at the right by their decimal point, nulls as `-`.

    Columns that hold nothing but nulls are left out unless `columns` names them. Where `width`
    cells are not enough, what is the same in every row is told once, above; the last column of
    text that fits in part is cut; and a last line names the columns that have no room at all.
    """
    texts = encode.to_text(table)
    named = [name for name in columns if name in texts.columns]
    shown = named or [name for name in texts.columns if _holds_anything(texts[name])]
    numbers = {texts.columns[i] for i, field in enumerate(table.schema) if _is_number(field.type)}
    cells = {name: _cells(texts[name], name, right=name in numbers) for name in shown}
    if width is not None and _width(cells) > width:
        same = [n for n in shown if n not in numbers and len(texts) > 1 and _is_same(texts[n])]
        if same and len(same) < len(shown):
            above = (f"{name} {cells.pop(name)[1].rstrip()}" for name in same)
            yield click.style(_GAP.join(above), dim=True)
    fitting, left_out = _fit(cells, numbers, width)
    yield click.style(_GAP.join(column[0] for column in fitting).rstrip(), bold=True)
    rows = zip(*(column[1:] for column in fitting), strict=True)
    for number, row in enumerate(rows):
        line = _GAP.join(row).rstrip()
        colour = style(texts.row(number, named=True)) if style else None
        yield click.style(line, fg=colour) if colour else line
    if left_out:
        yield click.style(f"not shown for want of room: {', '.join(left_out)}", dim=True)


def _holds_anything(column: pl.Series) -> bool:
    return column.null_count() < len(column) or len(column) == 0


def _is_same(column: pl.Series) -> bool:
    return column.n_unique() == 1


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _cells(column: pl.Series, name: str, *, right: bool) -> list[str]:
    """The header and each value, all of one width."""
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


def _width(cells: Mapping[str, list[str]]) -> int:
    return sum(cell_len(column[0]) + len(_GAP) for column in cells.values()) - len(_GAP)


def _fit(
    cells: Mapping[str, list[str]], numbers: set[str], width: int | None
) -> tuple[list[list[str]], list[str]]:
    """The columns that fit, and the names of those that do not; the first stands in any case."""
    fitting: list[list[str]] = []
    names = list(cells)
    room = width if width is not None else _width(cells)
    for at, name in enumerate(names):
        wanted = cell_len(cells[name][0])
        if wanted > room and name not in numbers and room >= _NARROWEST:
            fitting.append([_cut(text, room) for text in cells[name]])
            return fitting, names[at + 1 :]
        if wanted > room and at > 0:
            return fitting, names[at:]
        fitting.append(cells[name])
        room -= wanted + len(_GAP)
    return fitting, []


def _cut(text: str, width: int) -> str:
    text = text.rstrip()
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"
