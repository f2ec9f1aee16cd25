"""One kind's way into its table: read, decided, gathered, committed; what was shed, brought in.

Comes in: messages, from the table's offsets on. Goes out: commits, each by compare and swap.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from k2.errors import Broken, Conflict, NotFound, Refused, Unavailable
from k2.ingest.batch import Batch, Committed, commit_batch, follow_on, moved_by
from k2.ingest.closed import Closed
from k2.ingest.decide import Decided
from k2.ingest.drive import Drive
from k2.ingest.fill import fill, open_ranges
from k2.ingest.follow import Follower, offset_in
from k2.ingest.loss import note_losses
from k2.ingest.marks import ID_COLUMN
from k2.ingest.options import WriterOptions
from k2.ingest.outage import Outage
from k2.ingest.shed import KINDS, Shedding
from k2.ingest.sift import table_of
from k2.ingest.skip import skipped
from k2.ingest.tidying import Tidying
from k2.ingest.tiers import TierFile
from k2.ingest.tracking import Owned, Sequenced, Sequences
from k2.ingest.watch import Lag, Place, figures_of, lags_of
from k2.lake import Lake, ShedRange, Snapshot
from k2.log import Log, Registry
from k2.traces import step

logger = logging.getLogger(__name__)

_READ_BYTES: Final = 8 << 20
_LOOK_EVERY: Final = timedelta(seconds=1)
_TELL_EVERY: Final = timedelta(seconds=1)

Step = Callable[[str], None]


class Line:
    """One kind's way into its table: decided runs are gathered here while a commit is under way.

    `on_step` is told the name of each step of a commit before it is taken.
    """

    def __init__(
        self,
        kind: str,
        log: Log,
        registry: Registry,
        lake: Lake,
        options: WriterOptions,
        on_step: Step,
        outage: Outage | None = None,
        drive: Drive | None = None,
    ) -> None:
        drive = drive or Drive()
        self._kind = kind
        self._log = log
        self._registry = registry
        self._lake = lake
        self._options = options
        self._on_step = on_step
        self._table = lake.table(table_of(kind))
        self._clock = drive.clock
        self._committer = drive.committer(kind)
        self._tidying = Tidying(lake, self._table, self._clock)
        self._owned: Owned | None = None
        self._is_broken = False
        self._lags: Mapping[Place, Lag] = {}
        self._told_at = -_TELL_EVERY.total_seconds()
        self._reached = False
        self._outage = outage or Outage()
        self._not_there: set[ShedRange] = set()
        self._tiers = TierFile(options.overload.tiers)
        self._closed = Closed(lake, kind)
        self._begin()

    def _begin(self) -> None:
        """From the table's offsets on, with nothing gathered."""
        snapshot = self._table.snapshot()
        self._follower = Follower(
            self._kind,
            self._log,
            self._registry,
            self._table,
            snapshot,
            self._options.skew,
            self._closed,
        )
        self._sequences: Sequences | None = None
        if self._kind in ID_COLUMN:
            grace, most = self._options.gap_grace, self._options.most_holes
            self._sequences = Sequences(self._lake, self._table, snapshot, grace, most)
        self._gathered: list[Decided] = []
        self._committing: list[Decided] = []
        self._since = 0.0
        self._commit: Future[Committed] | None = None
        self._is_filling = False
        self._was_idle = False
        self._quiet_since = self._clock()
        self.is_away = False
        """Whether log, registry or lake did not answer, and are tried again in a while."""
        self._not_before = 0.0
        self._look_at = 0.0

    @property
    def waiting(self) -> Sequence[Exception]:
        """Why topics or partitions cannot go on."""
        return [*self._follower.waiting.values(), *self._follower.stopped.values()]

    def snapshot(self) -> Snapshot:
        """The table as it is, also with what others have committed."""
        return self._table.snapshot()

    def places(self) -> dict[Place, tuple[int, int]]:
        """Of each partition that is read here, the next offset to be read, and the log's end."""
        found: dict[Place, tuple[int, int]] = {}
        for topic, offsets in self._follower.next_offset.items():
            ends = self._log.end_offsets(topic)
            found |= {(topic, p): (at, ends[p]) for p, at in offsets.items() if p < len(ends)}
        return found

    @property
    def held_bytes(self) -> int:
        """What is read and not committed."""
        return sum(run.size_bytes for run in (*self._gathered, *self._committing))

    def step(
        self,
        owned: Owned | None,
        *,
        at_once: bool,
        shedding: Shedding | None = None,
        stopped: bool = False,
    ) -> bool:
        """Do what can be done now without waiting; whether there was anything to do.

        `owned`: the partitions that are to be read, all if None. `at_once`: commit as soon as
        nothing more is to be read. `shedding`: what is left in the log; while there is any, what
        was shed before waits. `stopped`: nothing is read or committed now.

        A log that is away is waited for, unless it was never reached or this is `at_once`: then
        raises `Unavailable`. So is one where a topic was just deleted.
        """
        try:
            return not stopped and self._move(owned, at_once, shedding)
        except (Unavailable, NotFound) as error:
            if at_once or not self._reached:
                raise
            self._is_away_now(error)
            return False

    def _move(self, owned: Owned | None, at_once: bool, shedding: Shedding | None) -> bool:
        self._settle()
        self._tell()
        if self._clock() < self._not_before:
            return False
        if self.is_away:
            self._wait()
            self._begin()
        self._own(owned)
        moved = False
        if not self._is_full() and not (shedding is None and self._is_turn_of_fill()):
            moved = self._poll(owned, shedding)
            self._was_idle |= not moved and not self._is_filling
        if not moved and shedding is None:
            moved = self._fill()
        if self._commit is None and self._gathered and (self._is_due() or (at_once and not moved)):
            self._start_commit()
            moved = True
        if moved or self._commit is not None:
            self._quiet_since = self._clock()
        elif self._clock() - self._quiet_since >= self._options.gap_grace.total_seconds():
            self._quiet_since = self._clock()
            self._keep_up()
            moved = self._tell_gaps()
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
        if mine is not None and met <= mine and not self.is_away:
            self._advance(self._table.snapshot(), [])
        else:
            self._begin()

    def _poll(self, owned: Owned | None, shedding: Shedding | None) -> bool:
        try:
            runs = self._follower.poll(_READ_BYTES, owned, shedding)
        except Conflict as error:
            self._wait()
            self._begin_again(error)
            return True
        except Broken as error:
            self._wait()
            self._begin_once_more(error)
            return True
        self._reached = True
        self._outage.ended()
        for run in runs:
            self._options.watch.read(run.topic, run.messages)
        if runs and not self._gathered:
            self._since = self._clock()
        self._gathered += runs
        return bool(runs)

    def _is_turn_of_fill(self) -> bool:
        """Whether nothing is read until some of what was shed is on its way: where records come all
        the time, one would always wait to be committed. Only if there was time to spare since then.
        """
        mine = self._was_idle and not self._is_filling and not self._gathered
        return mine and bool(self._open_ranges())

    def _fill(self) -> bool:
        """Bring in some of what was shed, by a commit of its own; whether there was any.

        Only where nothing else waits to be committed: what is decided meanwhile must find these
        rows among those that are on their way, and they lie before the table's offsets.
        """
        if self._commit is not None or self._gathered:
            return False
        for wanted in self._open_ranges():
            try:
                run = fill(self._log, self._lake, self._follower, wanted, self._tiers.tiers())
            except (NotFound, Refused) as error:
                # Refused: written by a newer K2. Whoever is started next tries again.
                logger.error(
                    "%s: shed records cannot be brought in: %s",
                    self._table.name,
                    error,
                    extra={"table": self._table.name, **asdict(wanted)},
                )
                self._not_there.add(wanted)
                continue
            except Conflict as error:
                self._begin_again(error)
                return True
            self._gathered = [run]
            self._start_commit()
            self._is_filling, self._was_idle = True, False
            return True
        return False

    def _tell_gaps(self) -> bool:
        """Tell the gap ledger what is missing, by a commit of its own; whether anything is."""
        if self._sequences is None or not self._follower.snapshot.sequence:
            return False
        sequenced = self._sequences.overdue(datetime.now(UTC), self._owned)
        if sequenced is None:
            return False
        base = self._follower.snapshot
        job = Batch([], base, base.offsets, (), sequenced)
        self._commit = self._committer.submit(self._run_commit, job)
        return True

    def tell_gaps(self) -> None:
        """Tell the gap ledger now what is missing: nothing more is to come."""
        self._wait()
        if not self._gathered and self._tell_gaps():
            self._wait()

    def _open_ranges(self) -> list[ShedRange]:
        if not self._follower.snapshot.shed:
            return []
        every = open_ranges(self._follower.snapshot, self._owned)
        return [each for each in every if each not in self._not_there]

    def skip(self, shedding: Shedding) -> None:
        """Go on at the log's end: all that stands in it and is not committed is shed as it is."""
        self._wait()
        self._begin()
        if self._kind not in KINDS:
            return
        self._follower.meet(self._owned)
        self._gathered = skipped(self._log, self._follower, self._table.definition.arrow, shedding)
        if self._gathered:
            self._start_commit()
            self._wait()
            self._begin()

    def _look_at_stopped(self) -> bool:
        """Say what is wrong with partitions that stopped; whether one of them can go on."""
        now = self._clock()
        if not self._follower.stopped or now < self._look_at:
            return False
        if not self._look_at:
            for error in self._follower.stopped.values():
                logger.error("%s: %s", self._table.name, error, extra={"table": self._table.name})
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
        if all(offset_in(before, place) == offset_in(after, place) for place in idle):
            return False
        self._wait()
        self._begin()
        return True

    def is_done(self) -> bool:
        """Whether all that the log holds of this kind is committed, or has to wait."""
        # After a commit that failed, what it held is in the log alone until the next try.
        idle = self._commit is None and not self._gathered and not self._not_before
        return idle and not self._open_ranges()

    def finish(self) -> None:
        """Commit what is gathered, wait for it, and bring the ledgers up to date."""
        self._wait()
        if self._gathered:
            self._start_commit()
            self._wait()
        if self._table.snapshot().sequence:
            self._committer.submit(self._tidying.run, self._follower, self._sequences).result()

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
        waited = self._clock() - self._since
        return (
            rows >= limits.rows
            or size >= limits.size_bytes
            or waited >= limits.interval.total_seconds()
        )

    def _gathered_size(self) -> tuple[int, int]:
        return _messages(self._gathered), sum(run.size_bytes for run in self._gathered)

    def _start_commit(self) -> None:
        runs, self._gathered = self._gathered, []
        base = self._follower.snapshot
        if not follow_on(base.offsets, runs):
            # The offsets that the commit compares are those of the snapshot: what was read before
            # another committed the same would pass for what comes behind it.
            self._begin_again("another writer was faster")
            return
        end = moved_by(base.offsets, runs, self._follower.log_ids)
        job = Batch(runs, base, end, tuple(self._follower.exchanges.values()))
        self._committing = runs
        self._commit = self._committer.submit(self._run_commit, job)

    def _run_commit(self, job: Batch) -> Committed:
        name = self._table.name
        with step(f"commit {name}", k2__table=name, k2__messages=_messages(job.runs)) as trace:
            done = self._commit_now(job)
            trace.tell(k2__commit=done.snapshot.sequence)
        if self._tidying.is_due():
            with step(f"tidy {name}", k2__table=name):
                self._tidying.run(self._follower, self._sequences)
        return done

    def _commit_now(self, job: Batch) -> Committed:
        begun = time.monotonic()
        if self._sequences is not None and job.sequenced is None:
            sequenced = self._sequences.sequence(job.runs, job.exchanges)
            job = replace(job, sequenced=sequenced)
        done = commit_batch(self._table, self._lake, job, self._options.file_age_max, self._on_step)
        self._options.watch.committed(figures_of(job, done, time.monotonic() - begun))
        return done

    def _settle(self) -> None:
        if self._commit is not None and self._commit.done():
            self._wait()

    def _wait(self) -> None:
        """Take the result of the commit under way; after a conflict, decide everything afresh."""
        if self._commit is None:
            return
        commit, self._commit, self._is_filling = self._commit, None, False
        try:
            done = commit.result()
        except Conflict as error:
            self._begin_again(error)
        except Unavailable as error:
            self._is_away_now(error)
        except Broken as error:
            self._begin_once_more(error)
        else:
            self._committing, self._is_broken = [], False
            self._advance(done.snapshot, done.paths, done.sequenced)

    def _is_away_now(self, error: Unavailable | NotFound) -> None:
        """Log, registry or lake is away: in a while, all begins again from the table."""
        wait = error.retry_after if isinstance(error, Unavailable) else None
        self._outage.goes_on(self._table.name, error)
        self.is_away = True
        # The log still holds all of it.
        self._gathered, self._committing = [], []
        self._not_before = self._clock() + (wait or 1.0)

    def _begin_again(self, why: object) -> None:
        logger.warning(
            "%s: %s; reading again", self._table.name, why, extra={"table": self._table.name}
        )
        self._options.watch.began_again(self._table.name)
        self._begin()

    def _begin_once_more(self, error: Broken) -> None:
        """A file was not there: from the table's own state that may be another, once."""
        if self._is_broken:
            raise error
        # A writer that was frozen for hours goes by files that were compacted and removed since.
        self._is_broken = True
        self._begin_again(error)

    def _keep_up(self) -> None:
        """Go by the newest snapshot: files of an older one are removed in time."""
        snapshot = self._table.snapshot()
        if not self._gathered and snapshot.sequence != self._follower.snapshot.sequence:
            self._advance(snapshot, [])

    def _tell(self) -> None:
        """Tell now and then how far the table is behind."""
        now = self._clock()
        if now - self._told_at < _TELL_EVERY.total_seconds():
            return
        self._told_at = now
        runs = [*self._committing, *self._gathered]
        self._lags = lags_of(self._follower, runs, self._lags)
        shed = sum(each.records for each in self._follower.snapshot.shed)
        stopped = len(self._follower.stopped)
        self._options.watch.behind(self._table.name, self._lags, stopped, shed)

    def _advance(
        self, snapshot: Snapshot, own: Collection[str], sequenced: Sequenced | None = None
    ) -> None:
        """Go on from a later snapshot, of which the files `own` were written here, with rows that
        were `sequenced`.
        """
        since = self._follower.snapshot.sequence
        others = [f.path for f in snapshot.files.since(since) if f.path not in own]
        try:
            self._follower.advance(snapshot, others)
        except Conflict as error:
            self._begin_again(error)
            return
        if self._sequences is not None:
            self._sequences.advance(snapshot, others, sequenced)


def _messages(runs: Sequence[Decided]) -> int:
    return sum(run.messages for run in runs)
