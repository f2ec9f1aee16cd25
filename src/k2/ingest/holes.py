"""Holes of all streams together: which of them the gap ledger has, and which memory lets go of.

Comes in: the streams of a table, and files of the ledger. Goes out: holes, each with its stream.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.ingest.gaps import read_ranges
from k2.ingest.sequence import Hole, State, Stream

ALL_HOLES: Final = 200_000
"""Holes of a table's streams that are kept in memory, at a good 600 bytes each. At 50,000 records a
second of which one in 100,000 is missing these are the holes of four days."""

Found: TypeAlias = tuple[Stream, Hole]
_Ints: TypeAlias = npt.NDArray[np.int64]


def count_holes(states: Mapping[Stream, State]) -> int:
    """How many there are of all streams."""
    return sum(len(state.holes) for state in states.values())


def excess(
    states: Mapping[Stream, State],
    most: int,
    is_told: Callable[[Hole], bool],
    may_be_told: Callable[[Stream, Hole], bool],
) -> list[Found]:
    """The holes that memory lets go of where there are more than `most`: so many that a tenth of
    that is free again. Those that are told first, then those that may be; the oldest of either
    first, by when the record behind it was seen.
    """
    count = count_holes(states)
    if count <= most:
        return []
    going: list[Found] = []
    untold: list[bool] = []
    for stream, state in states.items():
        for hole in state.holes:
            told = is_told(hole)
            if told or may_be_told(stream, hole):
                going.append((stream, hole))
                untold.append(not told)
    seen = np.array([hole.after.ingested for _, hole in going], np.int64)
    order = np.lexsort((seen, np.array(untold, np.bool_)))
    return [going[at] for at in order[: count - most + most // 10].tolist()]


def without(states: Mapping[Stream, State], gone: Iterable[Found]) -> dict[Stream, State]:
    """Those of the streams that had one of these holes, without them."""
    firsts: dict[Stream, set[int]] = defaultdict(set)
    for stream, hole in gone:
        firsts[stream].add(hole.first)
    return {
        stream: states[stream]._replace(
            holes=tuple(hole for hole in states[stream].holes if hole.first not in mine)
        )
        for stream, mine in firsts.items()
    }


def in_ledger(paths: Sequence[str], kind: str, holes: Sequence[Found]) -> npt.NDArray[np.bool_]:
    """Which of these holes the files of the ledger tell of: their ranges, taken together, have
    every number of it. Of the files only what touches a hole is held in memory.
    """
    told = np.zeros(len(holes), np.bool_)
    if not paths or not holes:
        return told
    streams = sorted({stream for stream, _ in holes})
    code = {stream: number for number, stream in enumerate(streams)}
    codes = np.array([code[stream] for stream, _ in holes], np.int64)
    firsts = np.array([hole.first for _, hole in holes], np.int64)
    lasts = np.array([hole.last for _, hole in holes], np.int64)
    order = np.lexsort((firsts, codes))
    borders = np.searchsorted(codes[order], np.arange(len(streams) + 1))
    of = [order[low:high] for low, high in pairwise(borders)]
    touching: dict[int, list[tuple[_Ints, _Ints]]] = defaultdict(list)
    for number, first, last in _by_stream(paths, kind, streams):
        # Holes of a stream lie apart from each other: the first that does not end before it.
        mine = of[number]
        at = np.minimum(np.searchsorted(lasts[mine], first), len(mine) - 1)
        touches = (first <= lasts[mine][at]) & (last >= firsts[mine][at])
        touching[number].append((first[touches], last[touches]))
    for number, parts in touching.items():
        first, last = (np.concatenate(each) for each in zip(*parts, strict=True))
        if len(first):
            mine = of[number]
            told[mine] = _covered(firsts[mine], lasts[mine], first, last)
    return told


def _by_stream(
    paths: Sequence[str], kind: str, streams: Sequence[Stream]
) -> Iterable[tuple[int, _Ints, _Ints]]:
    """The ranges (inclusive) that the files have of these streams, by the number of the stream."""
    names = pa.array(["\0".join(stream) for stream in streams], pa.string())
    exchanges, symbols = {each[0] for each in streams}, {each[1] for each in streams}
    for batch in read_ranges(paths, kind, exchanges, symbols):
        if not batch.num_rows:
            continue
        mine = pc.binary_join_element_wise(
            batch["exchange"], batch["symbol"], pc.coalesce(batch["id_space"], ""), "\0"
        )
        numbers = pc.fill_null(pc.index_in(mine, names), -1).to_numpy()
        order = np.argsort(numbers, kind="stable")
        first, last = (batch[name].to_numpy()[order] for name in ("first_missing", "last_missing"))
        starts = np.flatnonzero(np.diff(numbers[order], prepend=-2))
        ends = np.append(starts[1:], len(order))
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            if (number := int(numbers[order[start]])) >= 0:
                yield number, first[start:end], last[start:end]


def _covered(firsts: _Ints, lasts: _Ints, first: _Ints, last: _Ints) -> npt.NDArray[np.bool_]:
    """Which of the holes lie within one of the ranges, neighbours and such as overlap as one."""
    order = np.argsort(first, kind="stable")
    first, reached = first[order], np.maximum.accumulate(last[order])
    new = np.flatnonzero(first[1:] > reached[:-1] + 1) + 1
    starts = first[np.append(0, new)]
    ends = reached[np.append(new - 1, len(reached) - 1)]
    at = np.searchsorted(starts, firsts, side="right") - 1
    return np.asarray((at >= 0) & (lasts <= ends[at]))
