"""Exchange dates as spans of time: of which date an instant is, when a date begins.

A date begins at midnight in the exchange's zone, less its day roll.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.model import Exchange
from k2.query.interval import Midnights
from k2.query.predicate import instants
from k2.query.selection import Selection
from k2.query.zones import DAY_US, EARLIEST, EPOCH, LATEST, from_us, midnight, to_us

_SECOND_US: Final = 1_000_000
_WIDEN: Final = 8


def day_of(exchange: Exchange, when: datetime) -> date:
    """The exchange date that an instant belongs to; of those beyond all time, the last one."""
    bounded = from_us(min(max(to_us(when), EARLIEST), LATEST))
    return (bounded + exchange.day_roll).astimezone(ZoneInfo(exchange.zone)).date()


def begin_of(exchange: Exchange, day: date) -> datetime:
    """When the exchange date begins (UTC)."""
    return midnight(exchange.zone, day) - exchange.day_roll


def day_began(selection: Selection, exchanges: Mapping[str, Exchange]) -> datetime | None:
    """When the exchange date began in which the selection's start lies, the earliest of those of
    its exchanges; None for a selection without a start.
    """
    if selection.start is None:
        return None
    starts = instants(selection.start, selection, exchanges)
    begins = [
        begin_of(exchanges[name], day_of(exchanges[name], starts.get(name) or starts[""]))
        for name in selection.exchanges or exchanges
        if name in exchanges
    ]
    return min(begins, default=min(starts.values()))


def days_table(midnights: Midnights, exchanges: Mapping[str, Exchange]) -> pa.Table:
    """Columns exchange, exchange_date, midnight, next_midnight, date_begin, date_end (in
    microseconds UTC).

    The last date of `midnights` is left out, since its end is not among them.
    """
    first, last = (day - EPOCH for day in (midnights.first, midnights.last))
    dates = np.arange(first.days, last.days, dtype=np.int32)
    names = list(midnights.begin_us)
    ends = [midnights.begin_us[name] for name in names]
    rolls = [roll_us(exchanges[name]) for name in names]
    return pa.table(
        {
            "exchange": pa.array(np.repeat(np.array(names, object), len(dates)), pa.string()),
            "exchange_date": pa.array(np.tile(dates, len(names)), pa.int32()).cast(pa.date32()),
            "midnight": _column([each[:-1] for each in ends]),
            "next_midnight": _column([each[1:] for each in ends]),
            "date_begin": _column(
                [each[:-1] - roll for each, roll in zip(ends, rolls, strict=True)]
            ),
            "date_end": _column([each[1:] - roll for each, roll in zip(ends, rolls, strict=True)]),
        }
    )


def roll_us(exchange: Exchange) -> int:
    """How much before midnight its dates begin, in microseconds."""
    return int(exchange.day_roll.total_seconds()) * _SECOND_US


def _column(parts: list[npt.NDArray[np.int64]]) -> pa.Array:
    return pa.array(np.concatenate(parts) if parts else np.empty(0, np.int64), pa.int64())


def back_by_dates(
    exchanges: Mapping[str, Exchange], low: datetime, high: datetime
) -> Iterator[datetime]:
    """When the date of `high` began (where that was first), then ever earlier times after `low`."""
    if not exchanges:
        return
    start = to_us(min(begin_of(each, day_of(each, high)) for each in exchanges.values()))
    width = DAY_US
    while start > to_us(low):
        yield from_us(start)
        start, width = start - width, width * _WIDEN
