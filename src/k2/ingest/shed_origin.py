"""What became of records that were shed: which wait in the log, and which commit brought in others.

Comes in: the shed ledger, and the commits with the fronts of shed ranges that each filled. Goes
out: for any offset that was shed, its commit.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.lake import ShedRange
from k2.lake.offsets import shed_from_json
from k2.lake.places import from_distances

WAITS: Final = 0
"""In place of a commit: the record was shed, and is not brought in yet."""
UNKNOWN: Final = -1
"""In place of a commit: an older K2 brought it in, which did not keep by which commit."""

_Ints = npt.NDArray[np.int64]
_Place = tuple[str, str, int]
_Key = tuple[str, str, str, int]
"""The id of a time of overload, and the place."""


@dataclass(frozen=True)
class _Front:
    """Offsets `[first, end)` of a shed range that one commit filled."""

    first: int
    end: int
    commit: int


@dataclass(frozen=True)
class _Exact:
    """Offsets of one place, ascending, and the commit of each."""

    offsets: _Ints
    commits: _Ints


class ShedOrigins:
    """What was shed of one kind, as of a commit of its table. Immutable.

    `entries` are those of the shed ledger, `commits` all of the table's; of these, such as came
    after the commit `until` filled nothing yet. Takes sixteen bytes for each record that was shed.
    """

    def __init__(self, entries: pa.Table, commits: pa.Table, until: int) -> None:
        rows = entries.to_pylist()
        fronts = _fronts(rows, commits, until)
        whole: dict[_Place, list[_Front]] = defaultdict(list)
        exact: dict[_Place, list[_Exact]] = defaultdict(list)
        for row in rows:
            if row["event"] != "shed":
                continue
            place, mine = _place(row), fronts.get(_key(row), [])
            if row["distances"] is None:
                first, end = row["log_offset"], row["end_offset"]
                whole[place] += [_Front(first, end, WAITS), *_clipped(mine, first, end)]
            else:
                where = f"shed ledger: {row['log_topic']}[{row['log_partition']}]"
                offsets = from_distances(row["log_offset"], row["distances"], where)
                exact[place].append(_Exact(offsets, _commits_of(offsets, mine)))
        self._whole = dict(whole)
        self._exact = {place: _sorted(parts) for place, parts in exact.items()}
        self._fronts: dict[_Place, list[_Front]] = defaultdict(list)
        for (_, topic, log_id, partition), mine in fronts.items():
            self._fronts[topic, log_id, partition] += mine

    def settled(self, place: _Place, offsets: _Ints, commits: _Ints) -> _Ints:
        """The commits, by which the table passed these offsets, for those that were not shed; for
        the others the commit that brought them in later, or `WAITS` or `UNKNOWN`.
        """
        whole, exact = self._whole.get(place, ()), self._exact.get(place)
        if not whole and exact is None:
            return commits
        found = commits.copy()
        for each in whole:
            found[(offsets >= each.first) & (offsets < each.end)] = each.commit
        if exact is not None:
            # What was shed whatever its tier may have been shed anew, by its tier: that came last.
            at = np.searchsorted(exact.offsets, offsets)
            at[at == len(exact.offsets)] = 0
            hit = exact.offsets[at] == offsets
            found[hit] = exact.commits[at[hit]]
        return found

    def fronts(self, place: _Place, commits: _Ints) -> list[tuple[int, int]]:
        """The offsets `[first, end)` within which these commits brought in what had been shed."""
        wanted = set(commits.tolist())
        return [(f.first, f.end) for f in self._fronts.get(place, ()) if f.commit in wanted]


def _fronts(
    rows: Iterable[Mapping[str, Any]], commits: pa.Table, until: int
) -> dict[_Key, list[_Front]]:
    """What was filled of each range up to that commit, ascending."""
    found: dict[_Key, dict[tuple[int, int], int]] = defaultdict(dict)
    for commit, document in zip(
        commits["commit"].to_pylist(), commits["filled"].to_pylist(), strict=True
    ):
        for each in shed_from_json(document) if document else ():
            found[_key_of(each)][each.first_offset, each.end_offset] = commit
    for row in rows:
        if row["event"] == "filled":
            found[_key(row)].setdefault((row["log_offset"], row["end_offset"]), UNKNOWN)
    return {
        key: [_Front(*span, commit) for span, commit in sorted(of.items()) if commit <= until]
        for key, of in found.items()
    }


def _key(row: Mapping[str, Any]) -> _Key:
    return (row["id"], *_place(row))


def _place(row: Mapping[str, Any]) -> _Place:
    return row["log_topic"], row["log_id"], row["log_partition"]


def _key_of(each: ShedRange) -> _Key:
    return each.id, each.topic, each.log_id, each.partition


def _clipped(fronts: Iterable[_Front], first: int, end: int) -> Iterable[_Front]:
    """Of the fronts what lies within `[first, end)`."""
    for each in fronts:
        low, high = max(each.first, first), min(each.end, end)
        if low < high:
            yield _Front(low, high, each.commit)


def _commits_of(offsets: _Ints, fronts: list[_Front]) -> _Ints:
    """The commit that filled each of the offsets; fronts ascend, apart from each other."""
    found = np.full(len(offsets), WAITS, np.int64)
    if fronts:
        firsts, ends, commits = np.array([(f.first, f.end, f.commit) for f in fronts], np.int64).T
        at = np.searchsorted(firsts, offsets, side="right") - 1
        hit = (at >= 0) & (offsets < ends[at])
        found[hit] = commits[at[hit]]
    return found


def _sorted(parts: list[_Exact]) -> _Exact:
    offsets = np.concatenate([part.offsets for part in parts])
    order = np.argsort(offsets, kind="stable")
    return _Exact(offsets[order], np.concatenate([part.commits for part in parts])[order])
