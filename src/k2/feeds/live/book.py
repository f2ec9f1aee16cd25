"""A book of price levels, kept from a venue's changes: the best of each side, and the levels."""

from bisect import bisect_left, insort
from decimal import Decimal
from typing import Final

ASK: Final = "ask"
BID: Final = "bid"

Level = tuple[str, str, str]
"""Price and quantity as the venue wrote them, and the digits of both: without points and leading
zeros."""

NO_LEVEL: Final = (None, None, None)


class _Side:
    """Levels by a key that grows towards the best one, which stands last."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._keys: list[Decimal] = []
        self._levels: dict[Decimal, Level] = {}

    def set(self, price: str, quantity: str) -> None:
        key = Decimal(price) * self._sign
        if not quantity.strip("0."):
            if self._levels.pop(key, None) is not None:
                del self._keys[bisect_left(self._keys, key)]
            return
        if key not in self._levels:
            # Most changes are near the best, which stands last: little is moved.
            insort(self._keys, key)
        digits = price.replace(".", "").lstrip("0") + quantity.replace(".", "").lstrip("0")
        self._levels[key] = (price, quantity, digits)

    def keep(self, depth: int) -> None:
        if len(self._keys) > depth:
            for key in self._keys[:-depth]:
                del self._levels[key]
            del self._keys[:-depth]

    def best_key(self) -> Decimal | None:
        return self._keys[-1] if self._keys else None

    def best(self) -> Level | None:
        return self._levels[self._keys[-1]] if self._keys else None

    def first(self, count: int) -> list[Level]:
        return [self._levels[key] for key in self._keys[: -count - 1 : -1]]


class Book:
    """Both sides of one symbol's book. Prices and quantities are decimal texts (`venue.plain`)."""

    def __init__(self) -> None:
        self._sides = {BID: _Side(1), ASK: _Side(-1)}

    def set(self, side: str, price: str, quantity: str) -> None:
        """Set the quantity of a level; 0 removes it."""
        self._sides[side].set(price, quantity)

    def keep(self, depth: int) -> None:
        """Forget the levels of each side behind the `depth` best."""
        for side in self._sides.values():
            side.keep(depth)

    def best(self) -> tuple[Level | None, Level | None]:
        """Best bid and ask; None for a side that is empty."""
        return self._sides[BID].best(), self._sides[ASK].best()

    def is_crossed(self) -> bool:
        """Whether the best bid is not below the best ask, as no true book is."""
        bid, ask = self._sides[BID].best_key(), self._sides[ASK].best_key()
        # An ask's key is its price with the sign turned.
        return bid is not None and ask is not None and bid + ask >= 0

    def first(self, side: str, count: int) -> list[Level]:
        """The `count` best levels of a side, the best first."""
        return self._sides[side].first(count)
