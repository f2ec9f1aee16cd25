"""Which record stood beside another: the newest by event time, of those that were known by then.

Comes in: the keys of two sets of records, as columns. Goes out: for each of the left, the index of
one of the right. No I/O. What is not late costs one binary search.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

Column = npt.NDArray[np.int64]

NONE: Final = -1
"""The index where no record of the right is meant."""

_ROOM: Final = 2**62
_NEVER: Final = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Keys:
    """What records are matched by, one value each: `pair` numbers symbol and exchange from 0,
    `time` is nanoseconds since 1970, `known` microseconds since 1970 (see `knowledge`), and
    `place` tells apart records of one pair and time, by the total order.
    """

    pair: Column
    time: Column
    known: Column
    place: Column

    def __len__(self) -> int:
        return len(self.pair)

    def take(self, indices: npt.NDArray[np.intp]) -> "Keys":
        """The keys at these indices."""
        return Keys(*(of[indices] for of in (self.pair, self.time, self.known, self.place)))


@dataclass(frozen=True)
class Rule:
    """Which records of the right may stand beside one of the left.

    Those at or before its time (`strict`: before it) that were known when it was (`look_ahead`:
    whenever they were known).
    """

    strict: bool = False
    look_ahead: bool = False


KNOWN_BY_THEN: Final = Rule()
"""At or before its time, and known when it was."""


def match(left: Keys, right: Keys, rule: Rule) -> tuple[Column, npt.NDArray[np.bool_]]:
    """For each of the left, the index in the right of the last record in total order that the rule
    allows (`NONE`: there is none), and whether a later one was passed over, not being known yet.
    """
    if not len(left) or not len(right):
        return np.full(len(left), NONE, np.int64), np.zeros(len(left), np.bool_)
    order = _order(right)
    if order is not None:
        right = right.take(order)
    left_at, right_at = _positions(left, right)
    found = np.searchsorted(right_at, left_at, side="left" if rule.strict else "right") - 1
    found = _of_pair(found, left.pair, right.pair)
    passed = np.zeros(len(left), np.bool_)
    if not rule.look_ahead:
        passed = (found != NONE) & (right.known[found] > left.known)
        late = np.flatnonzero(passed)
        if len(late):
            known = _last_known(right.known, found[late], left.known[late])
            found[late] = _of_pair(known, left.pair[late], right.pair)
    if order is not None:
        found = np.where(found == NONE, NONE, order[found])
    return found.astype(np.int64, copy=False), passed


def _of_pair(found: Column, wanted: Column, pair: Column) -> Column:
    """The indices, `NONE` where they lead to another pair."""
    return np.where((found != NONE) & (pair[found] == wanted), found, NONE)


def _order(keys: Keys) -> npt.NDArray[np.intp] | None:
    """The indices that sort the keys by pair and total order; None where they are sorted."""
    pair, time, place = np.diff(keys.pair), np.diff(keys.time), np.diff(keys.place)
    later = (time > 0) | ((time == 0) & (place >= 0))
    if bool(np.all((pair > 0) | ((pair == 0) & later))):
        return None
    return np.lexsort((keys.place, keys.time, keys.pair))


def _positions(left: Keys, right: Keys) -> tuple[Column, Column]:
    """Pair and time of both as one number each, that orders as the two do."""
    low = min(int(left.time.min()), int(right.time.min()))
    span = max(int(left.time.max()), int(right.time.max())) - low + 1
    if (max(int(left.pair.max()), int(right.pair.max())) + 1) * span < _ROOM:
        return left.pair * span + (left.time - low), right.pair * span + (right.time - low)
    # Too many pairs over too long a time for one number: then the times' ranks do.
    times = np.unique(np.concatenate([left.time, right.time]))
    ranks = (np.searchsorted(times, of.time) for of in (left, right))
    left_rank, right_rank = ranks
    return left.pair * len(times) + left_rank, right.pair * len(times) + right_rank


def _last_known(known: Column, last: Column, by: Column) -> Column:
    """For each question, the greatest index up to `last` (inclusive) at which `known` is at most
    `by`; `NONE` if there is none.

    Over a tree of minima (a segment tree), all questions at once: whatever is late and however much
    of it, a question costs two walks along the tree's height.
    """
    lows = [known]
    while len(lows[-1]) > 1:
        if len(lows[-1]) % 2:
            lows[-1] = np.append(lows[-1], _NEVER)
        lows.append(np.minimum(lows[-1][0::2], lows[-1][1::2]))
    found = np.full(len(last), NONE, np.int64)
    waiting, end = np.arange(len(last)), last + 1
    for height, low in enumerate(lows):
        # Up, by the blocks of 2^height that end at `end`: all that lies after it was looked at.
        odd = (end >> height) & 1 == 1
        block = (end >> height) - 1
        hit = odd & (low[np.where(odd, block, 0)] <= by[waiting])
        found[waiting[hit]] = _down(lows, height, block[hit], by[waiting[hit]])
        waiting, end, odd = waiting[~hit], end[~hit], odd[~hit]
        end = np.where(odd, end - (1 << height), end)
        waiting, end = waiting[end > 0], end[end > 0]
        if not len(waiting):
            break
    return found


def _down(lows: list[Column], height: int, block: Column, by: Column) -> Column:
    """The last index in each block of 2^height, which holds one, that is at most `by`."""
    for low in reversed(lows[:height]):
        block = 2 * block + 1
        block -= low[block] > by
    return block
