"""Which commit brought which offsets of the log into a table.

Comes in: the table's commits, with the offsets document after each, and what was shed. Goes out:
for any offset the commit that brought it, and for any commits the ranges that they brought.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.errors import Broken
from k2.ingest.shed_origin import WAITS, ShedOrigins
from k2.lake.offsets import offsets_from_json

Ints: TypeAlias = npt.NDArray[np.int64]
Place: TypeAlias = tuple[str, str, int]
"""Topic, identity of the log, partition."""


@dataclass(frozen=True)
class _Steps:
    """Of one place: commit `commit[i]` brought the offsets from `end[i - 1]` (or 0) to `end[i]`."""

    end: Ints
    commit: Ints


class Origins:
    """The commits of one table, oldest first, as `Lake.commits_of` gives them, and what of it was
    shed. Immutable.
    """

    def __init__(self, commits: pa.Table, shed: ShedOrigins) -> None:
        ends: dict[Place, list[int]] = defaultdict(list)
        numbers: dict[Place, list[int]] = defaultdict(list)
        reached: dict[Place, int] = {}
        before = ""
        # A loop over commits, of which there are a few a second at the very most.
        for commit, document in zip(
            commits["commit"].to_pylist(), commits["offsets"].to_pylist(), strict=True
        ):
            if document == before:
                continue
            before = document
            for topic, of in offsets_from_json(document).items():
                for partition, offset in of.next_offset.items():
                    place = (topic, of.log_id, partition)
                    if offset > reached.get(place, 0):
                        reached[place] = offset
                        ends[place].append(offset)
                        numbers[place].append(commit)
        self._steps = {
            place: _Steps(np.array(ends[place], np.int64), np.array(numbers[place], np.int64))
            for place in ends
        }
        self._shed = shed

    def commits(self, place: Place, offsets: Ints) -> Ints:
        """The commit that brought each offset, or `WAITS` or `UNKNOWN` (see `shed_origin`). Raises
        `Broken` for one that no commit has reached.
        """
        steps = self._steps.get(place)
        if steps is None or (len(offsets) and int(offsets.max()) >= steps.end[-1]):
            raise Broken(
                "no commit says that it brought this offset",
                place=f"{place[0]}[{place[2]}]",
                found=str(int(offsets.max())),
            )
        passed = steps.commit[np.searchsorted(steps.end, offsets, side="right")]
        return self._shed.settled(place, offsets, passed)

    def waiting(self, place: Place, offsets: Ints) -> npt.NDArray[np.bool_]:
        """Which of these were shed and are in no commit."""
        none = np.full(len(offsets), WAITS + 1, np.int64)
        return np.asarray(self._shed.settled(place, offsets, none) == WAITS)

    def ranges(self, commits: Ints | None) -> Mapping[Place, list[tuple[int, int]]]:
        """The offsets `[first, end)` within which all lie that these commits brought (all of them,
        if None), ascending, neighbours as one. Others may lie there too where records were shed.
        """
        found: dict[Place, list[tuple[int, int]]] = {}
        for place, steps in self._steps.items():
            starts = np.concatenate([np.zeros(1, np.int64), steps.end[:-1]])
            ends = steps.end
            if commits is not None:
                chosen = np.isin(steps.commit, commits)
                fronts = self._shed.fronts(place, commits)
                starts, ends = _with(starts[chosen], ends[chosen], fronts)
            if len(starts):
                found[place] = joined(starts, ends, 0)
        return found


def _with(starts: Ints, ends: Ints, more: Sequence[tuple[int, int]]) -> tuple[Ints, Ints]:
    """These ranges and more of them, by their starts."""
    starts = np.concatenate([starts, np.array([first for first, _ in more], np.int64)])
    ends = np.concatenate([ends, np.array([end for _, end in more], np.int64)])
    order = np.argsort(starts, kind="stable")
    return starts[order], ends[order]


def joined(starts: Ints, ends: Ints, hole: int) -> list[tuple[int, int]]:
    """Ranges `[start, end)` that ascend by their starts; those that overlap, or are no further
    apart than `hole`, as one.
    """
    reached = np.maximum.accumulate(ends)
    new = np.flatnonzero(starts[1:] > reached[:-1] + hole) + 1
    firsts = starts[np.concatenate([np.zeros(1, np.int64), new])]
    lasts = reached[np.concatenate([new - 1, np.array([len(ends) - 1])])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
