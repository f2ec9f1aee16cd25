"""Which interval of the bars' grid each record is in, and from when to when intervals last."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.model import Exchange, micros
from k2.query.interval import Interval, midnights_of
from k2.query.zones import EPOCH, from_us

Column = npt.NDArray[np.int64]

_AROUND: Final = timedelta(days=3)
_MICROSECOND: Final = timedelta(microseconds=1)


def interval_starts(
    records: pa.Table, interval: Interval, exchanges: Mapping[str, Exchange]
) -> Column:
    """When the interval of each record (`timestamp`, `exchange`, `exchange_date`) begins, as bars
    have it: microseconds since 1970 UTC.
    """
    if not records.num_rows:
        return np.zeros(0, np.int64)
    days = records["exchange_date"].cast(pa.int32()).to_numpy()
    first, last = (EPOCH + timedelta(int(day)) for day in (days.min(), days.max()))
    midnight = np.zeros(len(days), np.int64)
    for name, begin in midnights_of(exchanges, first, last).begin_us.items():
        mine = pc.equal(records["exchange"], name).to_numpy()
        midnight[mine] = begin[days[mine] - int(days.min())]
    if interval.is_day:
        return midnight
    happened = micros(records["timestamp"])
    return happened - (happened - midnight) % interval.width_us


def interval_spans(
    starts: Column,
    names: pa.ChunkedArray,
    interval: Interval,
    exchanges: Mapping[str, Exchange],
) -> tuple[Column, Column]:
    """From when to when the intervals last that begin at `starts`, at the exchanges of these names.

    A day ends where the next begins, and so does the interval before it on days of 23 and 25
    hours. A day that rolls before midnight begins and ends that much earlier than its name says.
    """
    begins, ends = starts.copy(), starts + interval.width_us
    if not len(starts):
        return begins, ends
    first, last = (from_us(int(at)).date() for at in (starts.min(), starts.max()))
    midnights = midnights_of(exchanges, first - _AROUND, last + _AROUND)
    for name, days in midnights.begin_us.items():
        mine = pc.equal(names, name).to_numpy()
        following = days[np.searchsorted(days, starts[mine], side="right")]
        roll = exchanges[name].day_roll // _MICROSECOND
        if interval.is_day:
            begins[mine] -= roll
            ends[mine] = following - roll
        elif not roll:
            ends[mine] = np.minimum(ends[mine], following)
    return begins, ends
