"""Whether two engines gave the same answer: only then are their times of the same thing."""

from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bench.questions import Beside, Question, Records
from k2.errors import Broken

_TOLERANCE: Final = 1e-9
"""What sums of floats may be off, relative to themselves."""
_LAST_PLACE: Final = 1.000001e-8
"""Quotients are rounded half-even by K2 and cut off by others: they may differ by one there."""
_LEFT_OPEN: Final = 50
"""Of so many pairs one may have another quote: engines may take any of one instant, and not all
look at quotes of the day before. Of 20 pairs in any case."""


def check_same(what: str, who: str, question: Question, ours: pa.Table, theirs: pa.Table) -> None:
    """Raises `Broken`, with the first row that differs, unless both hold the same rows.

    Decimals, times and texts are equal to the last digit, floats to nine digits. Bars and extents
    may come in any order, records may not.
    """
    if ours.num_rows != theirs.num_rows:
        raise Broken(
            f"{who} gives another number of rows",
            place=what,
            found=f"{theirs.num_rows:,}",
            expected=f"{ours.num_rows:,}",
        )
    if not isinstance(question, Records | Beside):
        keys = [n for n in ("symbol", "start") if n in ours.column_names]
        ours, theirs = _sorted(ours, keys), _sorted(theirs, keys)
    for name in ours.column_names:
        wrong = np.flatnonzero(_differs(name, ours[name], theirs[name]))
        open_ = 0
        if isinstance(question, Beside) and name not in ("timestamp", "price", "quantity"):
            open_ = max(20, ours.num_rows // _LEFT_OPEN)
        if len(wrong) > open_:
            row = int(wrong[0])
            raise Broken(
                f"{who} gives another {name} in {len(wrong):,} rows",
                place=f"{what}, row {row:,}",
                found=str(theirs[name][row].as_py()),
                expected=str(ours[name][row].as_py()),
            )


def _sorted(table: pa.Table, keys: list[str]) -> pa.Table:
    plain = table.set_column(
        table.schema.get_field_index("symbol"), "symbol", _plain(table["symbol"])
    )
    return plain.sort_by([(key, "ascending") for key in keys])


def _differs(name: str, ours: pa.ChunkedArray, theirs: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    ours, theirs = _plain(ours), _plain(theirs)
    if pa.types.is_floating(theirs.type) or name == "vwap":
        a, b = (_floats(column) for column in (ours, theirs))
        slack = _LAST_PLACE if name == "vwap" else 0.0
        return ~np.isclose(a, b, rtol=_TOLERANCE, atol=slack, equal_nan=True)
    same = pc.fill_null(pc.equal(ours, theirs.cast(ours.type)), False)
    both_null = pc.and_(ours.is_null(), theirs.is_null())
    found: npt.NDArray[np.bool_] = pc.invert(pc.or_(same, both_null)).to_numpy()
    return found


def _floats(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = column.cast(pa.float64()).to_numpy()
    return found


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Without dictionaries, with short texts, and times in microseconds UTC."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(pa.string())
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or pa.types.is_binary(kind):
        return column.cast(pa.string())
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz)).cast(pa.timestamp("us", "UTC"))
    return column
