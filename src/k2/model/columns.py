"""Columns as numbers: what the hot paths compute on, without a copy where there is a way."""

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.model.exchange import Exchange

_MINUTE_US = 60_000_000
_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def micros(column: pa.ChunkedArray | pa.Array) -> npt.NDArray[np.int64]:
    """Microseconds since 1970 UTC of a timestamp column without nulls."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    return array.view(pa.int64()).to_numpy(zero_copy_only=False)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values, whether or not a dictionary codes them."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def plain_schema(fields: Iterable[pa.Field]) -> pa.Schema:
    """The same columns, none coded by a dictionary, and each of them nullable."""
    return pa.schema([(field.name, plain_type(field.type)) for field in fields])


def exchange_dates(timestamp: npt.NDArray[np.int64], exchange: Exchange) -> npt.NDArray[np.int32]:
    """Days since 1970 of each timestamp's (microseconds UTC) trading date at the exchange."""
    shifted = timestamp + int(exchange.day_roll / timedelta(microseconds=1))
    return ((shifted + utc_offsets(shifted, exchange.zone)) // _DAY_US).astype(np.int32)


def utc_offsets(timestamp: npt.NDArray[np.int64], zone: str) -> npt.NDArray[np.int64]:
    """Microseconds that `zone` is ahead of UTC at each timestamp (microseconds UTC).

    Offsets are looked up once a distinct minute: every zone has changed its clocks at whole minutes
    (some at one past the hour) since 1972-01-08. A few did not before; a time within the minute of
    such a change gets the offset from before it.
    """
    if zone == "UTC" or not len(timestamp):
        return np.zeros(len(timestamp), np.int64)
    info = ZoneInfo(zone)
    minute = timestamp // _MINUTE_US
    low, high = int(minute.min()), int(minute.max())
    if low == high:
        return np.full(len(timestamp), _offset_us(low, info), np.int64)
    distinct, place = np.unique(minute, return_inverse=True)
    offsets = np.array([_offset_us(int(m), info) for m in distinct], np.int64)
    return offsets[place]


def _offset_us(minute: int, zone: ZoneInfo) -> int:
    moment = (_EPOCH + timedelta(microseconds=minute * _MINUTE_US)).astimezone(zone)
    offset = moment.utcoffset()
    assert offset is not None
    return offset // timedelta(microseconds=1)


def start_of_day(day: date, exchange: Exchange) -> datetime:
    """The instant (UTC) at which the exchange's trading date `day` begins."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(exchange.zone))
    return (midnight - exchange.day_roll).astimezone(UTC)
