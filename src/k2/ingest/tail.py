"""The tail: what is in the log and not yet in a snapshot, decided as the writer will decide it.

Comes in: log and tables. Goes out: a snapshot together with every new row past its offsets, so that
history and tail are one, with nothing missing or doubled at the seam.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import pyarrow as pa

from k2.errors import Conflict, Unavailable
from k2.ingest.closed import Closed
from k2.ingest.decide import Decided
from k2.ingest.follow import Follower, offset_in
from k2.ingest.known import past
from k2.ingest.sift import table_of
from k2.lake import Lake, Snapshot
from k2.log import Log, Registry

_READ_BYTES: Final = 8 << 20


@dataclass(frozen=True)
class Pinned:
    """One state of one kind: a snapshot, and the rows past its offsets up to `offsets` (exclusive).

    `rows` has the table's columns but commit_sequence, in log order of each partition.
    """

    snapshot: Snapshot
    rows: pa.Table
    offsets: Mapping[str, Mapping[int, int]]


class Tail:
    """Follows the log for readers. Any thread may pin; what is decided once is kept in memory.

    Raises `Unavailable` once more than `limit` rows wait to be committed, or messages that are yet
    to be decided: the writer is down or far behind, and an answer without them would be wrong; none
    is held then. So it does, or raises `Refused`, where records cannot be decided now.
    """

    def __init__(
        self, log: Log, registry: Registry, lake: Lake, skew: timedelta, limit: int
    ) -> None:
        self._log = log
        self._registry = registry
        self._lake = lake
        self._skew = skew
        self._limit = limit
        self._kinds: dict[str, _KindTail] = {}
        self._lock = threading.Lock()

    def pin(self, kind: str) -> Pinned:
        """The newest state: whatever was appended before the call is in it."""
        with self._lock:
            if kind not in self._kinds:
                self._kinds[kind] = _KindTail(kind, self)
        return self._kinds[kind].pin()


class _KindTail:
    """The tail of one kind."""

    def __init__(self, kind: str, tail: Tail) -> None:
        self._tail = tail
        self._table = tail._lake.table(table_of(kind))
        self._kind = kind
        self._lock = threading.Lock()
        self._runs: list[Decided] = []
        self._joined: pa.Table | None = None
        self._is_far_behind = False
        self._closed = Closed(tail._lake, kind)
        self._follower = self._begin(self._table.snapshot())

    def _begin(self, snapshot: Snapshot) -> Follower:
        self._runs, self._joined = [], None
        tail = self._tail
        return Follower(
            self._kind,
            tail._log,
            tail._registry,
            self._table,
            snapshot,
            tail._skew,
            self._closed,
        )

    def pin(self) -> Pinned:
        with self._lock:
            snapshot = self._table.snapshot()
            if self._follower.stopped:
                self._follower = self._begin(snapshot)
            elif snapshot.sequence != self._follower.snapshot.sequence:
                self._advance(snapshot)
            if self._is_far_behind:
                # Known without reading: each question would else decide some of it for nothing.
                self._check(self._follower.lag(), snapshot)
            while runs := self._poll(snapshot):
                self._runs += runs
                self._joined = None
                self._check(self._follower.behind(), snapshot)
            # What waits here, such as for a registry that is away, is in the log: an answer
            # without it would be wrong.
            for error in (*self._follower.stopped.values(), *self._follower.waiting.values()):
                raise error
            if self._joined is None:
                self._joined = self._join(snapshot)
            offsets = {t: dict(p) for t, p in self._follower.next_offset.items()}
            return Pinned(snapshot, self._joined, offsets)

    def _check(self, behind: int, snapshot: Snapshot) -> None:
        """Raises `Unavailable` where too much waits, with `behind` messages not decided here."""
        waiting = sum(run.rows.num_rows for run in self._runs) + behind
        self._is_far_behind = waiting > self._tail._limit
        if self._is_far_behind:
            self._follower = self._begin(snapshot)
            raise Unavailable(
                f"{waiting:,} {self._kind} wait to be committed, and an answer holds "
                f"{self._tail._limit:,} of them at most: the writer is down or far behind",
                retry_after=5,
                hint="start `k2 ingest`, or wait if it runs (`k2 doctor`); `--as-of -1m` (as_of) "
                "answers from what is committed",
            )

    def _poll(self, snapshot: Snapshot) -> list[Decided]:
        try:
            return self._follower.poll(_READ_BYTES)
        except Conflict:
            self._follower = self._begin(snapshot)
            raise

    def _advance(self, snapshot: Snapshot) -> None:
        if snapshot.sequence < self._follower.snapshot.sequence:
            raise Conflict("the table went back to an earlier state", place=self._kind)
        before = self._follower.snapshot
        # What was brought in later may be the same as a record that waits here; and one that waits
        # may have passed for the same as one that was then shed, or given up as lost. What waits of
        # a day that was closed since is not kept.
        changed = any(
            getattr(before, name) != getattr(snapshot, name)
            for name in ("shed", "losses", "retired")
        )
        if changed or _overtaken(self._follower, snapshot):
            self._follower = self._begin(snapshot)
        else:
            self._follower.advance(snapshot)
            kept = (replace(run, rows=past(run.rows, snapshot)) for run in self._runs)
            self._runs = [run for run in kept if run.rows.num_rows]
        self._joined = None

    def _join(self, snapshot: Snapshot) -> pa.Table:
        if not self._runs:
            return self._table.definition.arrow.empty_table().drop_columns(["commit_sequence"])
        return pa.concat_tables([run.rows for run in self._runs])


def _overtaken(follower: Follower, snapshot: Snapshot) -> bool:
    """Whether the snapshot has committed past what was decided here, goes by another log, or has
    more of what never was in a log (one that waits may be the same): then decide anew from it.
    """

    def reached(place: tuple[str, int]) -> int:
        read = follower.next_offset.get(place[0], {}).get(place[1])
        known = offset_in(follower.snapshot.offsets, place) if read is None else None
        return (known[1] if known else read) or 0

    return any(
        offsets.log_id != follower.log_ids.get(topic, offsets.log_id)
        or offset > reached((topic, partition))
        for topic, offsets in snapshot.offsets.items()
        for partition, offset in offsets.next_offset.items()
    )
