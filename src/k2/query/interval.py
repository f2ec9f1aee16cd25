"""Intervals of bars: their names, and the grid on which they begin.

Intervals begin at an exchange's midnight and every width after it; a day is an exchange date.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.errors import BadInput
from k2.model import Exchange
from k2.query.zones import DAY_US, EPOCH, midnights

_UNIT_US: Final = {"s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": DAY_US}

_EONS_US: Final = 10**17
"""Three thousand years: added before a modulo, so that times before 1970 round down too."""


@dataclass(frozen=True)
class Interval:
    """A width of time that divides a day, in microseconds."""

    name: str
    width_us: int

    @property
    def is_day(self) -> bool:
        """Whether bars go by exchange date."""
        return self.width_us == DAY_US


def parse_interval(text: str) -> Interval:
    """The interval of `1s`, `5m`, `4h`, `1d` and the like. Raises `BadInput` for others."""
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip(), re.A)
    if match:
        width = int(match[1]) * _UNIT_US[match[2]]
        if 0 < width <= DAY_US and DAY_US % width == 0:
            return Interval(match[0], width)
    raise BadInput(
        f"{text!r} is no interval of bars",
        expected="a whole number of s, m or h that divides a day, or 1d",
        hint="for example: 1s 5s 15s 1m 5m 15m 30m 1h 4h 1d",
    )


@dataclass(frozen=True)
class Midnights:
    """When each date from `first` to `last` (inclusive) begins, by exchange."""

    first: date
    last: date
    begin_us: Mapping[str, npt.NDArray[np.int64]]

    def shift(self, width_us: int) -> int | None:
        """What to add to a time before its remainder by the width tells how far into its interval
        it is; None where that differs between exchanges or dates.
        """
        phases = {int(p) for of in self.begin_us.values() for p in np.unique(of % width_us)}
        if len(phases) > 1:
            return None
        phase = phases.pop() if phases else 0
        return -(-_EONS_US // width_us) * width_us - phase

    @property
    def are_whole_minutes(self) -> bool:
        """Whether every date begins with a minute: zones of long ago were off by seconds."""
        return not any((of % _UNIT_US["m"]).any() for of in self.begin_us.values())

    def to_table(self) -> pa.Table:
        """Columns exchange, exchange_date, midnight (microseconds UTC)."""
        days = np.arange((self.first - EPOCH).days, (self.last - EPOCH).days + 1, dtype=np.int32)
        names = list(self.begin_us)
        return pa.table(
            {
                "exchange": pa.array(
                    np.repeat(np.array(names, dtype=object), len(days)), pa.string()
                ),
                "exchange_date": pa.array(np.tile(days, len(names)), pa.int32()).cast(pa.date32()),
                "midnight": pa.array(
                    np.concatenate([self.begin_us[n] for n in names])
                    if names
                    else np.empty(0, np.int64)
                ),
            }
        )


def midnights_of(exchanges: Mapping[str, Exchange], first: date, last: date) -> Midnights:
    """The beginnings of all dates between two (both inclusive) at these exchanges."""
    return Midnights(
        first, last, {name: midnights(of.zone, first, last) for name, of in exchanges.items()}
    )
