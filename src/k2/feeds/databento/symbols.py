"""Which symbol an instrument id stands for, and which instruments cannot be kept exactly."""

from typing import Final

import numpy as np
import numpy.typing as npt

from k2.feeds.databento.stream import Array, Ints

ALWAYS: Final = 2**32 - 1
FINEST: Final = 10
"""Prices come in units of 1e-9, and those that are kept are multiples of 1e-8."""
UNDEFINED: Final = 2**63 - 1


class Symbols:
    """Symbols by instrument id and place, which is a day or the number of a record."""

    def __init__(self) -> None:
        self._added: list[tuple[int, int, int, int]] = []
        self._codes: dict[str, int] = {}
        self._sorted: Ints | None = None

    def add(self, instrument_id: int, first: int, end: int, symbol: str) -> None:
        """The id stands for `symbol` from `first` to `end`, exclusive, or to the next that is
        added for it.
        """
        code = self._codes.setdefault(symbol, len(self._codes))
        self._added.append((instrument_id, first, end, code))
        self._sorted = None

    def __len__(self) -> int:
        return len(self._added)

    @property
    def names(self) -> list[str]:
        """All symbols, in the order of their codes."""
        return list(self._codes)

    def codes(self, ids: Ints, places: Ints) -> npt.NDArray[np.int32]:
        """The code of each id's symbol at its place; -1 where it stands for none."""
        if not self._added:
            return np.full(len(ids), -1, np.int32)
        if self._sorted is None:
            # Of two that begin at one place, the one added last holds: the sort is stable.
            rows = np.array(self._added, np.int64)
            self._sorted = rows[np.argsort(_key(rows[:, 0], rows[:, 1]), kind="stable")]
        rows = self._sorted
        at = np.searchsorted(_key(rows[:, 0], rows[:, 1]), _key(ids, places), side="right") - 1
        found = rows[np.maximum(at, 0)]
        hit = (at >= 0) & (found[:, 0] == ids) & (places < found[:, 2])
        return np.where(hit, found[:, 3], -1).astype(np.int32)


class TooFine:
    """Instruments that trade in finer steps than can be kept, each from the record that tells so.

    From there on all of its records are refused: those that happen to fit would be a wrong picture.
    """

    def __init__(self) -> None:
        self._since: dict[int, tuple[int, str, str]] = {}

    def look(self, records: Array, numbers: Ints, names: tuple[str, ...]) -> None:
        """Meet the instruments of `records`, whose numbers in the file ascend."""
        for name in names:
            prices = records[name]
            fine = np.flatnonzero((prices % FINEST != 0) & (prices != UNDEFINED))
            ids, first = np.unique(records["instrument_id"][fine], return_index=True)
            for number, at in zip(ids.tolist(), fine[first].tolist(), strict=True):
                since = int(numbers[at])
                if number not in self._since or since < self._since[number][0]:
                    price = nine_digits(int(prices[at]))
                    why = f"{name} {price} in record {since:,} is no multiple of 0.00000001"
                    self._since[number] = since, name, f"the instrument cannot be kept: {why}"

    def among(self, records: Array, numbers: Ints) -> list[tuple[npt.NDArray[np.bool_], str, str]]:
        """For each such instrument its records among these, the column that told, and why."""
        found: list[tuple[npt.NDArray[np.bool_], str, str]] = []
        if not self._since:
            return found
        for number in set(np.unique(records["instrument_id"]).tolist()) & self._since.keys():
            since, name, why = self._since[number]
            bad = (records["instrument_id"] == number) & (numbers >= since)
            found.append((bad, name, why))
        return found


def nine_digits(units: int) -> str:
    """A price in units of 1e-9 as decimal text."""
    sign = "-" if units < 0 else ""
    return f"{sign}{abs(units) // 10**9}.{abs(units) % 10**9:09}"


def _key(ids: Ints, places: Ints) -> npt.NDArray[np.uint64]:
    return (ids.astype(np.uint64) << np.uint64(32)) + places.astype(np.uint64)
