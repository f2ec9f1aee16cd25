"""Offsets of zones and trading dates, held to Python's own calendar."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from k2.model import Exchange, exchange_dates, utc_offsets

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Australia/Sydney", datetime(2026, 4, 4, 16, tzinfo=UTC)),
        ("America/St_Johns", datetime(2010, 11, 7, 2, 31, tzinfo=UTC)),  # at one past midnight
        ("Asia/Gaza", datetime(2011, 3, 31, 22, 1, tzinfo=UTC)),
    ],
)
def test_offsets_and_dates_around_a_change_of_clocks(zone: str, change: datetime) -> None:
    times = [change + timedelta(seconds=each) for each in (-90_000, -61, -1, 0, 1, 59, 90_000)]
    micros = np.array([(t - EPOCH) // timedelta(microseconds=1) for t in times])
    local = [t.astimezone(ZoneInfo(zone)) for t in times]
    wanted = [(t.utcoffset() or timedelta(0)) // timedelta(microseconds=1) for t in local]
    assert utc_offsets(micros, zone).tolist() == wanted
    days = [(t.date() - EPOCH.date()).days for t in local]
    assert exchange_dates(micros, Exchange("X", "equities", zone)).tolist() == days
