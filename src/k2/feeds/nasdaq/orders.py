"""The orders that stand: what an execution says nothing of, price and side, is told by its order.

Comes in: messages that add, replace and delete orders, whole columns at a time. Goes out: price and
side by reference. References are used once a day. An order that is executed to its end stays known:
nobody deletes it, and a day has few enough.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

Longs = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Sides = npt.NDArray[np.bytes_]

NO_SIDE: Final = b""
_RECENT_MIN: Final = 100_000


class Orders:
    """Price (in 1e-4) and side (B, S or `NO_SIDE`) of each order, by its reference."""

    def __init__(self) -> None:
        self._settled = _none()
        self._recent = _none()
        self._deleted: list[Longs] = []

    def add(self, references: Longs, prices: Ints, sides: Sides) -> None:
        """Orders that stand from now on."""
        if not len(references):
            return
        fresh = np.zeros(len(references), _ORDER)
        fresh["reference"], fresh["price"], fresh["side"] = references, prices, sides
        self._recent = _sorted(np.concatenate([self._recent, fresh]))
        if len(self._recent) > max(_RECENT_MIN, len(self._settled) // 4):
            self._settle()

    def replace(self, old: Longs, new: Longs, prices: Ints) -> None:
        """Orders that took the place of others, on the same side; in any order."""
        if not len(old):
            return
        # The one replaced may itself be among these: back to the first of each chain.
        order = np.argsort(new)
        place = order[np.minimum(np.searchsorted(new[order], old), len(new) - 1)]
        first = np.where(new[place] == old, place, np.arange(len(new)))
        while (first[first] != first).any():
            first = first[first]
        _, _, sides = self.find(old[first])
        self.add(new, prices, sides)
        self.delete(old)

    def delete(self, references: Longs) -> None:
        """Orders that stand no more. They may still be found until others are added."""
        if len(references):
            self._deleted.append(references)

    def find(self, references: Longs) -> tuple[npt.NDArray[np.bool_], Ints, Sides]:
        """Whether each is known, its price, and its side."""
        known = np.zeros(len(references), np.bool_)
        prices = np.zeros(len(references), np.int64)
        sides = np.zeros(len(references), "S1")
        for orders in (self._settled, self._recent):
            if len(orders):
                place = np.searchsorted(orders["reference"], references)
                place = np.minimum(place, len(orders) - 1)
                here = orders["reference"][place] == references
                known |= here
                prices[here] = orders["price"][place[here]]
                sides[here] = orders["side"][place[here]]
        return known, prices, sides

    def _settle(self) -> None:
        every = _sorted(np.concatenate([self._settled, self._recent]))
        if self._deleted:
            gone = np.concatenate(self._deleted)
            every = every[~np.isin(every["reference"], gone)]
        self._settled, self._recent, self._deleted = every, _none(), []


_ORDER: Final = np.dtype([("reference", "u8"), ("price", "i8"), ("side", "S1")])


def _none() -> npt.NDArray[Any]:
    return np.zeros(0, _ORDER)


def _sorted(orders: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return orders[np.argsort(orders["reference"], kind="stable")]
