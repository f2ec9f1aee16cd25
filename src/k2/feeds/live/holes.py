"""Which trades of a symbol were had: what is missing, what is filled, what is given up."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

MOST_GIVEN_UP: Final = 1_000
"""So many ranges that were given up are remembered, in case they come after all."""


@dataclass(frozen=True)
class Hole:
    """Ids that are missing, both inclusive."""

    first: int
    last: int


class Ids:
    """The ids of one symbol that were had. Consecutive ones cost nothing to remember.

    `last` is the last before the first hole (None: nothing was had yet): all up to it were had or
    given up. Ids up to `expected` are known to exist.
    """

    def __init__(self, last: int | None = None, beyond: Iterable[tuple[int, int]] = ()) -> None:
        self.last = last
        self._ranges = [list(each) for each in beyond]
        self._expected = -1
        self._given_up: list[list[int]] = []

    def add(self, number: int) -> bool:
        """Take an id; False if it was had already."""
        if self.last is None:
            self.last = number
            return True
        if number == self.last + 1 and not self._ranges:
            self.last = number
            return True
        if number <= self.last:
            return self._came_after_all(number)
        at = bisect_right(self._ranges, [number, number]) - 1
        if at >= 0 and self._ranges[at][1] >= number:
            return self._came_after_all(number)
        if at + 1 < len(self._ranges) and self._ranges[at + 1][0] == number:
            return self._came_after_all(number)
        self._ranges.insert(at + 1, [number, number])
        self._join(at + 1)
        return True

    @property
    def beyond(self) -> tuple[tuple[int, int], ...]:
        """Ranges that were had behind the first hole, ascending, both ends inclusive."""
        return tuple((first, last) for first, last in self._ranges)

    @property
    def highest(self) -> int:
        """The highest id that was had; -1 if none was."""
        return self._ranges[-1][1] if self._ranges else -1 if self.last is None else self.last

    @property
    def whole(self) -> bool:
        """Whether nothing is missing."""
        return not self._ranges and self._expected <= self.highest

    def ends_a_hole(self, number: int) -> bool:
        """Whether an id that was had stands right behind a hole."""
        at = bisect_right(self._ranges, [number, number])
        near = self._ranges[max(at - 1, 0) : at + 1]
        return any(first == number for first, _ in near)

    def expect(self, number: int) -> None:
        """Learn that ids up to `number` exist; before anything was had, it means nothing."""
        self._expected = max(self._expected, number)

    def holes(self) -> list[Hole]:
        """What is missing, ascending."""
        if self.last is None:
            return []
        found, before = [], self.last
        for first, last in self._ranges:
            found.append(Hole(before + 1, first - 1))
            before = last
        if self._expected > before:
            found.append(Hole(before + 1, self._expected))
        return found

    def give_up(self, first: int, last: int) -> list[Hole]:
        """Miss ids `first` to `last` no longer; what of it was missing."""
        gone = [
            Hole(max(hole.first, first), min(hole.last, last))
            for hole in self.holes()
            if hole.first <= last and hole.last >= first
        ]
        for hole in gone:
            self._given_up.append([hole.first, hole.last])
            at = bisect_right(self._ranges, [hole.first, hole.last])
            self._ranges.insert(at, [hole.first, hole.last])
            self._join(at)
        del self._given_up[:-MOST_GIVEN_UP]
        return gone

    def _join(self, at: int) -> None:
        """Join the range with its neighbours, and the first one with what lies before it."""
        ranges = self._ranges
        if at + 1 < len(ranges) and ranges[at][1] + 1 == ranges[at + 1][0]:
            ranges[at][1] = ranges.pop(at + 1)[1]
        if at > 0 and ranges[at - 1][1] + 1 == ranges[at][0]:
            ranges[at - 1][1] = ranges.pop(at)[1]
        assert self.last is not None
        if ranges[0][0] == self.last + 1:
            self.last = ranges.pop(0)[1]

    def _came_after_all(self, number: int) -> bool:
        for at, (first, last) in enumerate(self._given_up):
            if first <= number <= last:
                parts = [[first, number - 1], [number + 1, last]]
                self._given_up[at : at + 1] = [part for part in parts if part[0] <= part[1]]
                return True
        return False
