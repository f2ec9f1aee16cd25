"""The tail: what is in the log and not yet in a snapshot, decided as the writer will decide it.

Comes in: log and tables. Goes out: a snapshot together with every new row past its offsets, so that
history and tail are one, with nothing missing or doubled at the seam.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import pyarrow as pa

from k2.errors import Conflict, Unavailable
from k2.ingest.closed import Closed
from k2.ingest.decide import Decided
from k2.ingest.follow import Follower, offset_in
from k2.ingest.sift import table_of
from k2.ingest.waiting import Waiting
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
    """Follows the log for readers. Any thread may pin; what is decided once is kept: half of
    `limit` rows in memory, others in mapped files.

    Raises `Unavailable` once more than `limit` rows wait to be committed, or messages that are yet
    to be decided: the writer is down or far behind, and an answer without them would be wrong; none
    is held then. Of kinds that somebody follows, `most` may wait, and only while more than `limit`
    messages are yet to be decided is there no answer. So it is, or it raises `Refused`, where
    records cannot be decided now.
    """

    def __init__(
        self,
        log: Log,
        registry: Registry,
        lake: Lake,
        skew: timedelta,
        limit: int,
        most: int | None = None,
    ) -> None:
        self._log = log
        self._registry = registry
        self._lake = lake
        self._skew = skew
        self._limit = limit
        self._most = limit if most is None else most
        self._kinds: dict[str, _KindTail] = {}
        self._lock = threading.Lock()

    def pin(self, kind: str) -> Pinned:
        """The newest state: whatever was appended before the call is in it."""
        return self._kind(kind).pin()

    def follow(self, kind: str) -> bool:
        """Decide some of what is far behind, for those who ask later; whether it is so still. Who
        has begun to follow a kind does so again and again.
        """
        return self._kind(kind).follow()

    def _kind(self, kind: str) -> "_KindTail":
        with self._lock:
            if kind not in self._kinds:
                self._kinds[kind] = _KindTail(kind, self)
            return self._kinds[kind]


class _KindTail:
    """The tail of one kind."""

    def __init__(self, kind: str, tail: Tail) -> None:
        self._tail = tail
        self._table = tail._lake.table(table_of(kind))
        self._kind = kind
        self._lock = threading.Lock()
        self._is_far_behind = False
        self._is_followed = False
        self._closed = Closed(tail._lake, kind)
        self._follower = self._begin(self._table.snapshot())

    def _begin(self, snapshot: Snapshot) -> Follower:
        tail, columns = self._tail, self._table.definition.arrow
        without = columns.remove(columns.get_field_index("commit_sequence"))
        self._waiting = Waiting(tail._lake.folder, tail._limit // 2, without)
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
            snapshot = self._meet()
            if self._is_far_behind:
                # Known without reading: each question would else decide some of it for nothing.
                self._check(self._follower.lag(), snapshot)
            while runs := self._poll(snapshot):
                self._waiting.add(run.rows for run in runs)
                self._check(self._follower.behind(), snapshot)
            # What waits here, such as for a registry that is away, is in the log: an answer
            # without it would be wrong.
            for error in (*self._follower.stopped.values(), *self._follower.waiting.values()):
                raise error
            offsets = {t: dict(p) for t, p in self._follower.next_offset.items()}
            return Pinned(snapshot, self._waiting.table(), offsets)

    def follow(self) -> bool:
        with self._lock:
            self._is_followed = True
            if not self._is_far_behind:
                return False
            snapshot = self._meet()
            behind = self._follower.lag()
            is_too_much = self._waiting.rows + behind > self._tail._most
            self._is_far_behind = is_too_much or behind > self._tail._limit
            if is_too_much or not self._is_far_behind:
                return False
            runs = self._poll(snapshot)
            self._waiting.add(run.rows for run in runs)
            return bool(runs)

    def _meet(self) -> Snapshot:
        """The newest snapshot, and all that waits in keeping with it."""
        snapshot = self._table.snapshot()
        if self._follower.stopped:
            self._follower = self._begin(snapshot)
        elif snapshot.sequence != self._follower.snapshot.sequence:
            self._advance(snapshot)
        return snapshot

    def _check(self, behind: int, snapshot: Snapshot) -> None:
        """Raises `Unavailable` where too much waits, with `behind` messages not decided here."""
        limit, waiting = self._tail._limit, self._waiting.rows + behind
        most = self._tail._most if self._is_followed else limit
        self._is_far_behind = waiting > most or behind > limit
        if waiting > most:
            self._follower = self._begin(snapshot)
            raise Unavailable(
                f"{waiting:,} {self._kind} wait to be committed, and an answer holds {most:,} of "
                "them at most: the writer is down or far behind",
                retry_after=5,
                hint="start `k2 ingest`, or wait if it runs (`k2 doctor`); `--as-of -1m` (as_of) "
                "answers from what is committed",
            )
        if behind > limit:
            raise Unavailable(
                f"{behind:,} of {waiting:,} {self._kind} that wait to be committed are not read "
                "yet: the writer is down or far behind, and the reader has begun just now",
                retry_after=2,
                hint="try again in some seconds; `--as-of -1m` (as_of) answers from what is "
                "committed",
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
        if changed or _is_other_log(self._follower, snapshot):
            self._follower = self._begin(snapshot)
            return
        others: list[str] = []
        if _overtaken(self._follower, snapshot):
            others = [file.path for file in snapshot.files.since(before.sequence)]
        try:
            self._follower.advance(snapshot, others, only_reads=True)
        except Conflict:
            self._follower = self._begin(snapshot)
        else:
            self._waiting.keep(snapshot)


def _is_other_log(follower: Follower, snapshot: Snapshot) -> bool:
    """Whether the snapshot goes by another log than what was decided here."""
    return any(
        offsets.log_id != follower.log_ids.get(topic, offsets.log_id)
        for topic, offsets in snapshot.offsets.items()
    )


def _overtaken(follower: Follower, snapshot: Snapshot) -> bool:
    """Whether the snapshot has committed past what was decided here, or has more of what never was
    in a log.
    """

    def reached(place: tuple[str, int]) -> int:
        read = follower.next_offset.get(place[0], {}).get(place[1])
        known = offset_in(follower.snapshot.offsets, place) if read is None else None
        return (known[1] if known else read) or 0

    return any(
        offset > reached((topic, partition))
        for topic, offsets in snapshot.offsets.items()
        for partition, offset in offsets.next_offset.items()
    )
