"""The writer: from the log into the tables, each record exactly once.

Comes in: messages, from the tables' own offsets on. Goes out: one Iceberg commit a batch, with its
rows, its ledgers' files and the next offsets, by compare and swap. Killed at any moment it goes on
from the tables' offsets and repeats nothing; one that was overtaken cannot commit, and reads again.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from k2.errors import Conflict, NotFound, Unavailable
from k2.ingest.batch import Batch, Committed, commit_batch, follow_on, moved_by
from k2.ingest.decide import Decided, table_of
from k2.ingest.follow import Follower
from k2.ingest.loss import note_losses
from k2.lake import Lake, Offsets, Snapshot
from k2.log import Log, Membership, Registry, retain
from k2.model import CLOCK_SKEW, kinds

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 8 << 20
_IDLE: Final = timedelta(milliseconds=10)
_ABSORB_EVERY: Final = timedelta(seconds=10)
_CLEAN_EVERY: Final = timedelta(minutes=10)
_CLEAN_FIRST: Final = timedelta(minutes=1)
_RETAIN_EVERY: Final = timedelta(minutes=1)
_LOOK_EVERY: Final = timedelta(seconds=1)

Step = Callable[[str], None]
Owned = Mapping[str, Collection[int]]
"""The partitions of each topic that a writer reads."""


@dataclass(frozen=True)
class CommitLimits:
    """When a batch is committed: at the first of these."""

    rows: int = 500_000
    size_bytes: int = 256 << 20
    interval: timedelta = timedelta(seconds=1)


@dataclass(frozen=True)
class Retention:
    """What the log keeps of what is committed already."""

    max_age: timedelta = timedelta(days=90)
    max_bytes: int | None = None


@dataclass(frozen=True)
class WriterOptions:
    """How a writer works. `skew`: how far a timestamp may lie ahead of its ingestion_timestamp.

    `file_age_max`: files prepared longer ago than this are written anew before their commit, so
    that whoever removes orphans cannot have taken them for some.
    """

    limits: CommitLimits = field(default_factory=CommitLimits)
    retention: Retention = field(default_factory=Retention)
    skew: timedelta = CLOCK_SKEW
    file_age_max: timedelta = timedelta(hours=12)


class Writer:
    """Brings every kind of record from the log into the tables. `run` it from one thread.

    With a `membership` it reads the partitions that are its own, else all of them. Others may
    commit meanwhile: what they were faster with is read again and decided again. `on_step` is told
    the name of each step of a commit before it is taken, for tests that stop or kill the writer
    there.
    """

    def __init__(
        self,
        log: Log,
        registry: Registry,
        lake: Lake,
        options: WriterOptions,
        on_step: Step = lambda step: None,
        membership: Membership | None = None,
    ) -> None:
        self._log = log
        self._lake = lake
        self._options = options
        self._membership = membership
        self._lines = {kind: _Line(kind, log, registry, lake, options, on_step) for kind in kinds()}
        self._retained = -_RETAIN_EVERY.total_seconds()

    def run(self, stop: Callable[[], bool], *, until_caught_up: bool = False) -> None:
        """Follow the log until `stop()`, or until all that it holds is committed.

        Raises, when caught up, what topics have to wait for: `Unavailable`, or `Broken` where log
        and tables do not belong together. These stop a partition, and no other.
        """
        try:
            while not stop():
                moved = [
                    line.step(self._owned(), at_once=until_caught_up)
                    for line in self._lines.values()
                ]
                self._retain()
                if any(moved):
                    continue
                if until_caught_up and all(line.is_done() for line in self._lines.values()):
                    break
                time.sleep(_IDLE.total_seconds())
            for line in self._lines.values():
                line.finish()
        finally:
            for line in self._lines.values():
                line.close()
        if until_caught_up:
            self._raise_waiting()

    def _owned(self) -> Owned | None:
        # Asked before each line's step: one may take long, and asking is the sign of life.
        return None if self._membership is None else self._membership.partitions()

    def _raise_waiting(self) -> None:
        for line in self._lines.values():
            for error in line.waiting:
                raise error

    def _retain(self) -> None:
        now = time.monotonic()
        if now - self._retained < _RETAIN_EVERY.total_seconds():
            return
        self._retained = now
        keep = self._options.retention
        retain(
            self._log,
            committed_offsets(self._log, [line.offsets() for line in self._lines.values()]),
            max_age=keep.max_age,
            max_bytes=keep.max_bytes,
            now=datetime.now(UTC),
        )


def group_of(lake: Lake) -> str:
    """Name of the group in which the writers of this lake divide the log's partitions.

    Another lake that follows the same log has another.
    """
    return f"k2-writers-{lake.table('trades').head().metadata['table-uuid']}"


def committed_offsets(log: Log, tables: Sequence[Offsets]) -> dict[tuple[str, int], int]:
    """By (topic, partition) the offset up to which (exclusive) the tables hold what this log does.

    A topic that is gone, or was made anew, is left out.
    """
    found: dict[tuple[str, int], int] = {}
    for topic, of in ((topic, of) for offsets in tables for topic, of in offsets.items()):
        try:
            if log.identity(topic) != of.log_id:
                continue
        except NotFound:
            continue
        found |= {(topic, partition): offset for partition, offset in of.next_offset.items()}
    return found


class _Line:
    """One kind's way into its table: decided runs are gathered here while a commit is under way."""

    def __init__(
        self,
        kind: str,
        log: Log,
        registry: Registry,
        lake: Lake,
        options: WriterOptions,
        on_step: Step,
    ) -> None:
        self._kind = kind
        self._log = log
        self._registry = registry
        self._lake = lake
        self._options = options
        self._on_step = on_step
        self._table = lake.table(table_of(kind))
        # One thread a table: commits of a table follow each other, and reading goes on meanwhile.
        self._committer = ThreadPoolExecutor(1, thread_name_prefix=f"commit-{kind}")
        self._absorbed_at = time.monotonic()
        # A writer that is often started anew must come to it as well.
        self._cleaned_at = self._absorbed_at - (_CLEAN_EVERY - _CLEAN_FIRST).total_seconds()
        self._owned: Owned | None = None
        self._begin()

    def _begin(self) -> None:
        """From the table's offsets on, with nothing gathered."""
        snapshot = self._table.snapshot()
        self._follower = Follower(
            self._kind, self._log, self._registry, self._table, snapshot, self._options.skew
        )
        self._gathered: list[Decided] = []
        self._since = 0.0
        self._commit: Future[Committed] | None = None
        self._not_before = 0.0
        self._look_at = 0.0

    @property
    def waiting(self) -> Sequence[Exception]:
        """Why topics or partitions cannot go on."""
        return [*self._follower.waiting.values(), *self._follower.stopped.values()]

    def offsets(self) -> Offsets:
        """What the table holds of all partitions, also of those that others read."""
        return self._table.snapshot().offsets

    def step(self, owned: Owned | None, *, at_once: bool) -> bool:
        """Do what can be done now without waiting; whether there was anything to do.

        `owned`: the partitions that are to be read, all if None. `at_once`: commit as soon as
        nothing more is to be read.
        """
        self._settle()
        if time.monotonic() < self._not_before:
            return False
        self._not_before = 0.0
        self._own(owned)
        moved = False
        if not self._is_full():
            moved = self._poll(owned)
        if self._commit is None and self._gathered and (self._is_due() or (at_once and not moved)):
            self._start_commit()
            moved = True
        return self._look_at_stopped() or moved

    def _own(self, owned: Owned | None) -> None:
        """What was lost to others is dropped; what was gained begins where they left it."""
        if owned == self._owned:
            return
        self._owned = owned
        self._wait()
        met = {(t, p) for t, offsets in self._follower.next_offset.items() for p in offsets}
        met |= self._follower.stopped.keys()
        mine = None if owned is None else {(t, p) for t, found in owned.items() for p in found}
        if mine is not None and met <= mine:
            self._advance(self._table.snapshot(), [])
        else:
            self._begin()

    def _poll(self, owned: Owned | None) -> bool:
        try:
            runs = self._follower.poll(_READ_BYTES, owned)
        except Conflict as error:
            logger.warning("%s: %s; reading again", self._table.name, error)
            self._wait()
            self._begin()
            return True
        if runs and not self._gathered:
            self._since = time.monotonic()
        self._gathered += runs
        return bool(runs)

    def _look_at_stopped(self) -> bool:
        """Say what is wrong with partitions that stopped; whether one of them can go on."""
        now = time.monotonic()
        if not self._follower.stopped or now < self._look_at:
            return False
        if not self._look_at:
            for error in self._follower.stopped.values():
                logger.error("%s: %s", self._table.name, error)
        self._look_at = now + _LOOK_EVERY.total_seconds()
        before = self._follower.snapshot.offsets
        idle = [
            (topic, partition)
            for topic, partition in self._follower.stopped
            # What was read of it is committed: the loss begins at the table's offset.
            if self._follower.is_committed(topic, partition)
        ]
        note_losses(self._log, self._lake, self._table, idle, datetime.now(UTC))
        after = self._table.snapshot().offsets
        if all(_offset(before, place) == _offset(after, place) for place in idle):
            return False
        self._wait()
        self._begin()
        return True

    def is_done(self) -> bool:
        """Whether all that the log holds of this kind is committed, or has to wait."""
        # After a commit that failed, what it held is in the log alone until the next try.
        return self._commit is None and not self._gathered and not self._not_before

    def finish(self) -> None:
        """Commit what is gathered, wait for it, and bring the ledgers up to date."""
        self._wait()
        if self._gathered:
            self._start_commit()
            self._wait()
        if self._table.snapshot().sequence:
            self._committer.submit(self._tidy).result()

    def close(self) -> None:
        """End the committing thread."""
        self._committer.shutdown(wait=True)

    def _is_full(self) -> bool:
        # Twice a batch may wait while a commit runs: memory stays bounded, reading goes on.
        limits = self._options.limits
        rows, size = self._gathered_size()
        return rows >= 2 * limits.rows or size >= 2 * limits.size_bytes

    def _is_due(self) -> bool:
        limits = self._options.limits
        rows, size = self._gathered_size()
        waited = time.monotonic() - self._since
        return (
            rows >= limits.rows
            or size >= limits.size_bytes
            or waited >= limits.interval.total_seconds()
        )

    def _gathered_size(self) -> tuple[int, int]:
        return (
            sum(run.messages for run in self._gathered),
            sum(run.size_bytes for run in self._gathered),
        )

    def _start_commit(self) -> None:
        runs, self._gathered = self._gathered, []
        base = self._follower.snapshot
        if not follow_on(base.offsets, runs):
            # The offsets that the commit compares are those of the snapshot: what was read before
            # another committed the same would pass for what comes behind it.
            logger.warning("%s: another writer was faster; reading again", self._table.name)
            self._begin()
            return
        end = moved_by(base.offsets, runs, self._follower.log_ids)
        job = Batch(runs, base, end, tuple(self._follower.exchanges.values()))
        self._commit = self._committer.submit(self._run_commit, job)

    def _run_commit(self, job: Batch) -> Committed:
        done = commit_batch(self._table, self._lake, job, self._options.file_age_max, self._on_step)
        if time.monotonic() - self._absorbed_at > _ABSORB_EVERY.total_seconds():
            self._absorbed_at = time.monotonic()
            self._tidy()
        return done

    def _tidy(self) -> None:
        """Ledgers brought up to date, marks kept, files of expired snapshots removed."""
        try:
            self._lake.absorb(self._table.name)
        except Conflict as error:
            # Other writers do the same, and were faster again and again.
            logger.info("%s: %s", self._table.name, error)
        self._follower.save()
        if time.monotonic() - self._cleaned_at > _CLEAN_EVERY.total_seconds():
            self._cleaned_at = time.monotonic()
            self._lake.clean(self._table.name)

    def _settle(self) -> None:
        if self._commit is not None and self._commit.done():
            self._wait()

    def _wait(self) -> None:
        """Take the result of the commit under way; after a conflict, decide everything afresh."""
        if self._commit is None:
            return
        commit, self._commit = self._commit, None
        try:
            done = commit.result()
        except Conflict as error:
            logger.warning("%s: %s; reading again", self._table.name, error)
            self._begin()
        except Unavailable as error:
            # The log still holds all of it: nothing is lost by starting again from the table.
            wait = error.retry_after or 1.0
            logger.warning("%s: %s; next try in %.0f s", self._table.name, error, wait)
            self._begin()
            self._not_before = time.monotonic() + wait
        else:
            self._advance(done.snapshot, done.paths)

    def _advance(self, snapshot: Snapshot, own: Collection[str]) -> None:
        """Go on from a later snapshot, of which the files `own` were written here."""
        since = self._follower.snapshot.sequence
        others = [f.path for f in snapshot.files.since(since) if f.path not in own]
        try:
            self._follower.advance(snapshot, others)
        except Conflict as error:
            logger.warning("%s: %s; reading again", self._table.name, error)
            self._begin()


def _offset(offsets: Offsets, place: tuple[str, int]) -> object:
    of = offsets.get(place[0])
    return of and (of.log_id, of.next_offset.get(place[1]))
