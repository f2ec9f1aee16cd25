"""Time-weighted average prices: each price counts for as long as it stood.

Comes in: a view of trades and a selection. Goes out: one row per symbol, exchange and interval that
has trades in it. A price holds until the next trade, or the end of the interval or of what was
asked for; the last price before the interval, of the same exchange date, holds from its beginning.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

import pyarrow as pa

from k2.model import PRICE_TYPE, TIMESTAMP_TYPE
from k2.query.days import day_began, days_table
from k2.query.frame import midnights_around, place_in, trades_predicate
from k2.query.interval import Interval, Midnights
from k2.query.port import Engine
from k2.query.predicate import Predicate, bounds, instants
from k2.query.rounding import half_even, in_units
from k2.query.selection import Selection
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import to_us

SCHEMA: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("exchange", pa.string()),
        ("start", TIMESTAMP_TYPE),
        ("twap", PRICE_TYPE),
    ]
)
_NEVER: Final = -(2**62)
_FOR_EVER: Final = 2**62
"""Microseconds beyond all time, both ways."""


def make_twap(
    engine: Engine, view: View, selection: Selection, interval: Interval, *, all_trades: bool
) -> pa.Table:
    """The averages (see `SCHEMA`), by symbol, exchange and start. Raises `BadInput`."""
    # The price that stood when the range began is of a trade before it.
    reading = replace(selection, start=day_began(selection, view.exchanges))
    edge = bounds(reading, view.exchanges)
    files = view.select(selection.symbols, times=(edge.start, edge.end))
    midnights = midnights_around(view, files, reading, view.exchanges)
    made = trades_predicate(view, reading, all_trades=all_trades)
    eons = Midnights(midnights.first, midnights.last, {}).shift(interval.width_us)
    start, began, finish = _span(interval, made, eons)
    edges = (
        _edge(made, instants(when, selection, view.exchanges), default)
        for when, default in ((selection.start, _NEVER), (selection.end, _FOR_EVER))
    )
    first, past = edges
    found = engine.run(
        statement(
            "twap",
            made.values,
            start=start,
            began=began,
            finish=finish,
            first=first,
            past=past,
            place=place_in(view),
            price=in_units("price"),
            predicate=made.text,
            twap=half_even("paid", "held"),
        ),
        {"rows": view.source(files), "days": days_table(midnights, view.exchanges)},
    )
    start_us = found["start"].cast(pa.int64()).cast(TIMESTAMP_TYPE)
    return found.set_column(2, "start", start_us).cast(SCHEMA)


def _span(interval: Interval, made: Predicate, shift: int | None) -> tuple[str, str, str]:
    """SQL of what an interval is called by, when it begins and when it ends, in microseconds."""
    if interval.is_day:
        return "midnight", "date_begin", "date_end"
    width = made.bind(interval.width_us)
    start = f"epoch_us(timestamp) - (epoch_us(timestamp) - midnight + {made.bind(shift)}) % {width}"
    return start, "start", f"least(start + {width}, next_midnight)"


def _edge(made: Predicate, edge: Mapping[str, datetime], default: int) -> str:
    """SQL of an edge of the range in microseconds, that of each exchange; `default` for none."""
    distinct = {to_us(when) for when in edge.values()} or {default}
    if len(distinct) == 1:
        return f"{made.bind(distinct.pop())}::bigint"
    cases = (
        f"when {made.bind(name)} then {made.bind(to_us(when))}::bigint"
        for name, when in edge.items()
    )
    return f"case exchange {' '.join(cases)} end"
