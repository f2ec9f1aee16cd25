"""The writer: from the log into the tables, each record exactly once.

Comes in: messages, from the tables' own offsets on. Goes out: one Iceberg commit a batch, with its
rows, its ledgers' files and the next offsets, by compare and swap. Killed at any moment it goes on
from the tables' offsets and repeats nothing; one that was overtaken cannot commit.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Conflict, Fenced, Unavailable
from k2.ingest.decide import Decided, table_of
from k2.ingest.follow import Follower
from k2.lake import (
    Commit,
    Lake,
    LakeTable,
    Offsets,
    Snapshot,
    TopicOffsets,
    WrittenFile,
    sort_indices,
)
from k2.log import Log, Registry, retain
from k2.model import CLOCK_SKEW, Exchange, kinds

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 8 << 20
_IDLE: Final = timedelta(milliseconds=10)
_ABSORB_EVERY: Final = timedelta(seconds=10)
_CLEAN_EVERY: Final = timedelta(minutes=10)
_RETAIN_EVERY: Final = timedelta(minutes=1)

Step = Callable[[str], None]


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

    `on_step` is told the name of each step of a commit before it is taken, for tests that stop or
    kill the writer there.
    """

    def __init__(
        self,
        log: Log,
        registry: Registry,
        lake: Lake,
        options: WriterOptions,
        on_step: Step = lambda step: None,
    ) -> None:
        self._log = log
        self._lake = lake
        self._options = options
        self._on_step = on_step
        self._lines = {kind: _Line(kind, log, registry, lake, options, on_step) for kind in kinds()}
        self._retained = -_RETAIN_EVERY.total_seconds()

    def run(self, stop: Callable[[], bool], *, until_caught_up: bool = False) -> None:
        """Follow the log until `stop()`, or until all that it holds is committed.

        Raises `Fenced` when another writer took over, `Broken` when log and tables do not belong
        together, `Unavailable` when caught up but for topics that have to wait.
        """
        try:
            while not stop():
                moved = [line.step(at_once=until_caught_up) for line in self._lines.values()]
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

    def _raise_waiting(self) -> None:
        for line in self._lines.values():
            for error in line.waiting.values():
                raise error

    def _retain(self) -> None:
        now = time.monotonic()
        if now - self._retained < _RETAIN_EVERY.total_seconds():
            return
        self._retained = now
        safe = {
            (topic, partition): offset
            for line in self._lines.values()
            for topic, offsets in line.committed.items()
            for partition, offset in offsets.next_offset.items()
        }
        keep = self._options.retention
        retain(
            self._log,
            safe,
            max_age=keep.max_age,
            max_bytes=keep.max_bytes,
            now=datetime.now(UTC),
        )


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
        self._absorbed_at = self._cleaned_at = time.monotonic()
        self._begin()

    def _begin(self) -> None:
        snapshot = self._table.snapshot()
        self._follower = Follower(
            self._kind, self._log, self._registry, self._table, snapshot, self._options.skew
        )
        self._offsets: Offsets = dict(snapshot.offsets)
        self._gathered: list[Decided] = []
        self._since = 0.0
        self._commit: Future[Snapshot] | None = None
        self._not_before = 0.0

    @property
    def waiting(self) -> Mapping[str, Exception]:
        """Topics that cannot go on, and why."""
        return self._follower.waiting

    @property
    def committed(self) -> Mapping[str, TopicOffsets]:
        """Offsets that the table holds."""
        return self._follower.snapshot.offsets

    def step(self, *, at_once: bool) -> bool:
        """Do what can be done now without waiting; whether there was anything to do.

        `at_once`: commit as soon as nothing more is to be read.
        """
        self._settle()
        if time.monotonic() < self._not_before:
            return False
        self._not_before = 0.0
        moved = False
        if not self._is_full():
            runs = self._follower.poll(_READ_BYTES)
            if runs and not self._gathered:
                self._since = time.monotonic()
            self._gathered += runs
            moved = bool(runs)
        if self._commit is None and self._gathered and (self._is_due() or (at_once and not moved)):
            self._start_commit()
            moved = True
        return moved

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
        end = _moved(self._offsets, runs, self._follower.log_ids)
        job = _Batch(
            runs,
            dict(self._offsets),
            end,
            tuple(self._follower.exchanges.values()),
        )
        self._offsets = end
        self._commit = self._committer.submit(self._run_commit, job)

    def _run_commit(self, job: "_Batch") -> Snapshot:
        snapshot = commit_batch(self._table, self._lake, job, self._options, self._on_step)
        if time.monotonic() - self._absorbed_at > _ABSORB_EVERY.total_seconds():
            self._absorbed_at = time.monotonic()
            self._tidy()
        return snapshot

    def _tidy(self) -> None:
        """Ledgers brought up to date, marks kept, files of expired snapshots removed."""
        self._lake.absorb(self._table.name)
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
            self._follower.advance(commit.result())
        except Fenced:
            raise
        except Conflict as error:
            logger.warning("%s: %s; reading again", self._table.name, error)
            self._begin()
        except Unavailable as error:
            # The log still holds all of it: nothing is lost by starting again from the table.
            wait = error.retry_after or 1.0
            logger.warning("%s: %s; next try in %.0f s", self._table.name, error, wait)
            self._begin()
            self._not_before = time.monotonic() + wait


@dataclass(frozen=True)
class _Batch:
    """What one commit brings: decided runs, and the offsets documents before and after it."""

    runs: list[Decided]
    start: Offsets
    end: Offsets
    exchanges: tuple[Exchange, ...]


def commit_batch(
    table: LakeTable, lake: Lake, batch: _Batch, options: WriterOptions, on_step: Step
) -> Snapshot:
    """Write the batch's files and commit them with its offsets.

    Raises what `LakeTable.commit` raises.
    """
    while True:
        on_step("files")
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        files = _write_rows(table, [run.rows for run in batch.runs])
        outbox = _write_ledgers(lake, batch.runs)
        on_step("commit")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - begun
        if age <= options.file_age_max.total_seconds():
            break
    summary = {
        "k2.rows": str(sum(run.rows.num_rows for run in batch.runs)),
    }
    snapshot = table.commit(
        Commit(tuple(files), batch.start, batch.end, outbox, batch.exchanges, summary)
    )
    on_step("answer")
    return snapshot


def _moved(start: Offsets, runs: Sequence[Decided], log_ids: Mapping[str, str]) -> Offsets:
    """The offsets document after these runs."""
    end = dict(start)
    for run in runs:
        before = end[run.topic].next_offset if run.topic in end else {}
        end[run.topic] = TopicOffsets(log_ids[run.topic], {**before, **run.next_offset})
    return end


def _write_rows(table: LakeTable, runs: Sequence[pa.Table]) -> list[WrittenFile]:
    """One file a trading date, sorted by symbol and time."""
    rows = pa.concat_tables([run for run in runs if run.num_rows] or runs[:1])
    if not rows.num_rows:
        return []
    if "exchange_date" not in rows.column_names:
        return [table.write(rows, None)]
    days = pc.unique(rows["exchange_date"]).sort()
    if len(days) == 1:
        return [_write_day(table, rows, days[0].as_py())]
    return [
        _write_day(table, rows.filter(pc.equal(rows["exchange_date"], day)), day.as_py())
        for day in days
    ]


def _write_day(table: LakeTable, rows: pa.Table, day: date) -> WrittenFile:
    rows = rows.unify_dictionaries().combine_chunks()
    rows = rows.take(pa.array(sort_indices(rows)))
    # Null: the commit that adds the file is the one that brings its rows.
    return table.write(rows.append_column("commit_sequence", pa.nulls(len(rows), pa.int64())), day)


def _write_ledgers(lake: Lake, runs: Sequence[Decided]) -> tuple[WrittenFile, ...]:
    """The batch's rejected and duplicate records, a file each, to be named in its commit."""
    ledgers = {
        "rejected": pa.concat_tables([run.rejected for run in runs]),
        "duplicates": pa.concat_tables([run.duplicates for run in runs]),
    }
    return tuple(
        lake.table(name).write(entries, None)
        for name, entries in ledgers.items()
        if entries.num_rows
    )
