"""Days as exchanges live them: when a date begins in a zone, as an instant.

Comes in: zone names and dates. Goes out: UTC instants, one by one or as columns of microseconds.
"""

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

EPOCH: Final = date(1970, 1, 1)
DAY_US: Final = 86_400_000_000
_DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_FIRST_YEAR: Final = date(2, 1, 1)
_LAST_YEAR: Final = date(9998, 12, 31)


def midnight(zone: str, day: date) -> datetime:
    """The instant (UTC) at which the date begins in the zone.

    Where clocks jump over midnight, the first instant of the date: Python reads a local time that
    does not exist with the offset before the jump, which is that instant.
    """
    day = min(max(day, _FIRST_YEAR), _LAST_YEAR)
    return datetime.combine(day, time.min, ZoneInfo(zone)).astimezone(UTC)


def to_us(when: datetime) -> int:
    """Microseconds since 1970-01-01 UTC."""
    return (when - _DAWN) // _MICROSECOND


def from_us(microseconds: int) -> datetime:
    """The instant (UTC) of microseconds since 1970-01-01."""
    return _DAWN + microseconds * _MICROSECOND


EARLIEST: Final = to_us(datetime(2, 1, 1, tzinfo=UTC))
LATEST: Final = to_us(datetime(9998, 12, 31, tzinfo=UTC))
"""What stands for times that are not known: a file without bounds counts for all of time."""


@lru_cache(maxsize=64)
def _midnights(zone: str, first: int, end: int) -> npt.NDArray[np.int64]:
    found = [to_us(midnight(zone, EPOCH + timedelta(days))) for days in range(first, end)]
    made = np.array(found, np.int64)
    made.flags.writeable = False
    return made


def midnights(zone: str, first: date, last: date) -> npt.NDArray[np.int64]:
    """Beginnings (microseconds UTC) of the dates from `first` to `last`, both inclusive."""
    # Whole centuries of days would be slow, single days would fill the cache: by blocks of 512.
    low, high = (first - EPOCH).days, (last - EPOCH).days
    parts = [_midnights(zone, n * 512, n * 512 + 512) for n in range(low // 512, high // 512 + 1)]
    joined = np.concatenate(parts) if len(parts) > 1 else parts[0]
    offset = (low // 512) * 512
    return joined[low - offset : high - offset + 1]
