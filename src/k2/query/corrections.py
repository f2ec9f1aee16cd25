"""What corrections have made of trades: a view of trades is given what stands of those asked for.

Comes in: a view of trades, and the corrections of the same moment. Goes out: the view with the last
word on each trade that was corrected; or, for a list of corrections, whether each has its trade.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from k2.model import Exchange
from k2.query.port import Engine
from k2.query.predicate import bounds, predicate
from k2.query.selection import Selection
from k2.query.statements import statement
from k2.query.view import STANDING, View

_AROUND = timedelta(days=2)
"""Zones are up to 14 hours off, and days may roll."""

TARGET_COLUMNS = (
    *("symbol", "exchange", "exchange_date", "trade_id", "id_space"),
    *("target_log_id", "target_partition", "target_offset"),
)
"""Columns of corrections by which their trades are found."""


def corrected(
    engine: Engine,
    trades: View,
    corrections: View | None,
    selection: Selection,
    day: date | None = None,
) -> View:
    """The view of trades with what stands of those that the selection (of one `day`) asks for.

    Where no file of corrections can be about them, none is read.
    """
    if corrections is None:
        return trades
    found = _standing(engine, corrections, selection, _days(selection, trades.exchanges, day))
    return replace(trades, corrections=corrections, standing=found if found.num_rows else None)


def _days(
    selection: Selection, exchanges: Mapping[str, Exchange], day: date | None
) -> tuple[date | None, date | None]:
    """The trading dates that may hold what is asked for, inclusive; None is open."""
    if day is not None:
        return day, day
    edge = bounds(selection, exchanges)
    try:
        return (
            None if edge.start is None else (edge.start - _AROUND).date(),
            None if edge.end is None else (edge.end + _AROUND).date(),
        )
    except OverflowError:
        return None, None


def _standing(
    engine: Engine,
    corrections: View,
    selection: Selection,
    days: tuple[date | None, date | None],
) -> pa.Table:
    files = corrections.select(selection.symbols, dates=days)
    if not files and corrections.tail is None:
        return STANDING.empty_table()
    mine = Selection(selection.symbols, selection.exchanges)
    made = predicate(mine, corrections.columns, corrections.time, {})
    for edge, operator in zip(days, (">=", "<="), strict=True):
        if edge is not None:
            made.add(f"exchange_date {operator} {made.bind(edge)}")
    found = engine.run(
        statement("standing", made.values, predicate=made.text), {"rows": corrections.source(files)}
    )
    return found.cast(STANDING)


def find_targets(engine: Engine, trades: View, corrections: pa.Table) -> pa.Array:
    """For each correction (with `TARGET_COLUMNS`), whether the trade that it is about is there."""
    if not corrections.num_rows:
        return pa.array([], pa.bool_())
    days = pc.min_max(corrections["exchange_date"]).as_py()
    symbols = pc.unique(corrections["symbol"]).to_pylist()
    files = trades.select(symbols, dates=(days["min"], days["max"]))
    numbers = pa.array(np.arange(corrections.num_rows))
    wanted = corrections.select(TARGET_COLUMNS).append_column("number", numbers)
    made = statement("targets", {})
    hits = engine.run(made, {"rows": trades.source(files), "wanted": wanted})["number"].to_numpy()
    found = np.zeros(corrections.num_rows, np.bool_)
    found[hits] = True
    return pa.array(found)
