"""Which commit brought which offsets of the log into a table.

Comes in: the table's commits, with the offsets document after each. Goes out: for any offset the
commit that brought it, and for any commits the ranges that they brought.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.errors import Broken
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
    """The commits of one table, oldest first, as `Lake.commits_of` gives them. Immutable."""

    def __init__(self, commits: pa.Table) -> None:
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

    def commits(self, place: Place, offsets: Ints) -> Ints:
        """The commit that brought each offset. Raises `Broken` for one that none did."""
        steps = self._steps.get(place)
        if steps is None or (len(offsets) and int(offsets.max()) >= steps.end[-1]):
            raise Broken(
                "no commit says that it brought this offset",
                place=f"{place[0]}[{place[2]}]",
                found=str(int(offsets.max())),
            )
        return steps.commit[np.searchsorted(steps.end, offsets, side="right")]

    def ranges(self, commits: Ints | None) -> Mapping[Place, list[tuple[int, int]]]:
        """The offsets `[first, end)` that these commits brought (all of them, if None), ascending,
        neighbours as one.
        """
        found: dict[Place, list[tuple[int, int]]] = {}
        for place, steps in self._steps.items():
            starts = np.concatenate([np.zeros(1, np.int64), steps.end[:-1]])
            ends = steps.end
            if commits is not None:
                chosen = np.isin(steps.commit, commits)
                starts, ends = starts[chosen], ends[chosen]
            if len(starts):
                found[place] = joined(starts, ends, 0)
        return found


def joined(starts: Ints, ends: Ints, hole: int) -> list[tuple[int, int]]:
    """Ascending ranges `[start, end)`, those no further apart than `hole` as one."""
    new = np.flatnonzero(starts[1:] > ends[:-1] + hole) + 1
    firsts = starts[np.concatenate([np.zeros(1, np.int64), new])]
    lasts = ends[np.concatenate([new - 1, np.array([len(ends) - 1])])]
    return list(zip(firsts.tolist(), lasts.tolist(), strict=True))
