"""The best bid and offer over all exchanges of a symbol, after each quote that changes them.

Comes in: a view of quotes and a selection. goes out: rows by symbol, in total order. A quote of an
exchange stands until its next one, and no longer than its exchange date.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pyarrow as pa

from k2.errors import BadInput
from k2.model import PRICE_TYPE, TIMESTAMP_TYPE, Exchange
from k2.query.days import back_by_dates, day_began, days_table
from k2.query.frame import midnights_around
from k2.query.newest import Newest
from k2.query.port import Engine
from k2.query.predicate import Bounds, Predicate, bounds, predicate
from k2.query.selection import Selection, check_count
from k2.query.statements import statement
from k2.query.view import View
from k2.query.zones import EARLIEST, from_us, to_us

SCHEMA: Final = pa.schema(
    [
        ("symbol", pa.string()),
        ("timestamp", TIMESTAMP_TYPE),
        ("bid_price", PRICE_TYPE),
        ("bid_quantity", pa.decimal128(38, 8)),
        ("bid_exchanges", pa.string()),
        ("ask_price", PRICE_TYPE),
        ("ask_quantity", pa.decimal128(38, 8)),
        ("ask_exchanges", pa.string()),
    ]
)
"""Columns of the answer. The quantity is that of all exchanges which quote the best price;
`…_exchanges` are these, with commas between. A side that nobody quotes is null.
"""

_MOST: Final = 120
"""Exchanges: one bit each of a whole number of 127."""
_TWO_DATES: Final = timedelta(days=3)
"""One date lasts no longer than this over all zones: from its first beginning to its last end."""


def make_bbo(engine: Engine, view: View, selection: Selection, last: int | None) -> pa.Table:
    """The best quotes (see `SCHEMA`) by symbol, in total order; only the newest `last` of each
    symbol, if that is given. Raises `BadInput`.
    """
    if last is not None:
        check_count("last", last)
    quoting = _Quoting(engine, view, last)
    if last is None:
        return quoting.all(selection)
    newest = Newest(last, ("symbol",), "timestamp", tuple(view.exchanges))
    return newest.of(quoting.all, quoting.starts(selection), selection)


class _Quoting:
    """One question on its way."""

    def __init__(self, engine: Engine, view: View, last: int | None) -> None:
        self._engine = engine
        self._view = view
        self._last = last

    def all(self, selection: Selection, start: datetime | None = None) -> pa.Table:
        """The best quotes of the selection, and not before `start` if it is given."""
        view = self._view
        asked = self._bounds(selection).start
        low = max(filter(None, (asked, start)), default=None)
        reading = replace(selection, start=self._back(low, selection))
        edge = self._bounds(reading)
        files = view.select(selection.symbols, times=(edge.start, edge.end))
        made = predicate(reading, view.columns, view.time, view.exchanges)
        kept = Predicate(values=made.values)
        if low is not None:
            kept.add(f"timestamp >= {kept.bind(low)}")
        days = midnights_around(view, files, reading, view.exchanges)
        found = self._engine.run(
            statement(
                "bbo",
                {**made.values, "newest": self._last},
                predicate=made.text,
                kept=kept.text,
                order=", ".join(view.order),
            ),
            {
                "rows": view.source(files),
                "days": days_table(days, view.exchanges),
                "exchanges": _ranked(selection.exchanges or tuple(view.exchanges)),
            },
        )
        return found.cast(SCHEMA)

    def starts(self, selection: Selection) -> Iterator[datetime | None]:
        """The beginning of the newest date, then ever earlier ones; the last one is None."""
        view, edge = self._view, self._bounds(selection)
        span = view.span(view.select(selection.symbols, times=(edge.start, edge.end)))
        if span is not None:
            low = max(span[0], edge.start) if edge.start else span[0]
            high = min(span[1], edge.end) if edge.end else span[1]
            yield from back_by_dates(view.exchanges, low, high)
        yield None

    def _bounds(self, selection: Selection) -> Bounds:
        return bounds(selection, self._view.exchanges)

    def _back(self, start: datetime | None, selection: Selection) -> datetime | None:
        """From when on to read, so that all that stands at `start` is known, and what changed."""
        exchanges = self._view.exchanges
        if start is None or _are_alike(exchanges):
            return day_began(replace(selection, start=start), exchanges)
        return from_us(max(to_us(start) - _TWO_DATES // timedelta(microseconds=1), EARLIEST))


def _ranked(exchanges: Sequence[str]) -> pa.Table:
    """Columns exchange, rank_of: a number of its own for each, from 0 on. Raises `BadInput`."""
    names = sorted(set(exchanges))
    if len(names) > _MOST:
        raise BadInput(
            f"these are {len(names)} exchanges",
            expected=f"at most {_MOST}",
            hint="name those that are wanted",
        )
    return pa.table({"exchange": pa.array(names, pa.string()), "rank_of": np.arange(len(names))})


def _are_alike(exchanges: Mapping[str, Exchange]) -> bool:
    """Whether dates begin and end at all of them at once."""
    return len({(of.zone, of.day_roll) for of in exchanges.values()}) <= 1
