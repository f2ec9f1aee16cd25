"""What a writer tells of its work to whoever watches it: a call a batch, never one a record.

The writer knows nothing of where its figures go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from k2.ingest.batch import Batch, Committed
from k2.ingest.decide import Decided
from k2.ingest.degradation import Change
from k2.ingest.follow import Follower

Place = tuple[str, int]
"""A topic and one of its partitions."""


@dataclass(frozen=True)
class CommitFigures:
    """One commit: how long it took, the records that it decided by their fate, bytes of its files.

    `filled`: how many records, shed before, it brought in (as rows, duplicates or rejected).
    `oldest`: the least ingestion_timestamp among its rows; None if it has no rows. `sequence`: what
    its records were to their streams, by status; `small_gaps` and `large_gaps` were told with it.
    """

    table: str
    seconds: float
    rows: int
    duplicates: int
    rejected: int
    shed: int
    filled: int
    size_bytes: int
    oldest: datetime | None
    sequence: Mapping[str, int]
    small_gaps: int
    large_gaps: int


@dataclass(frozen=True)
class Lag:
    """How far the table is behind a partition: up to where it is committed (exclusive), how many
    messages are not, and since when.

    `since`: the ingestion_timestamp of the oldest of them, or where that is not known the time at
    which the writer first saw them; None where there are none.
    """

    next_offset: int
    messages: int
    since: datetime | None


class Watch(Protocol):
    """Told of a writer's work from its own threads, several at a time. Methods return at once."""

    def read(self, topic: str, messages: int) -> None:
        """Messages were read and decided; those that are read again after a conflict count anew."""

    def committed(self, figures: CommitFigures) -> None:
        """A commit was made."""

    def began_again(self, table: str) -> None:
        """What was gathered for the table is read again: another writer was faster."""

    def behind(self, table: str, lags: Mapping[Place, Lag], stopped: int, shed: int) -> None:
        """How the partitions that feed the table stand now, how many stopped, and how many of all
        records that were shed are not brought in; about once a second.
        """

    def stepped(self, change: Change) -> None:
        """The level of degradation changed."""


class Unwatched:
    """A `Watch` that looks away."""

    def read(self, topic: str, messages: int) -> None:
        """Nothing."""

    def committed(self, figures: CommitFigures) -> None:
        """Nothing."""

    def began_again(self, table: str) -> None:
        """Nothing."""

    def behind(self, table: str, lags: Mapping[Place, Lag], stopped: int, shed: int) -> None:
        """Nothing."""

    def stepped(self, change: Change) -> None:
        """Nothing."""


def figures_of(batch: Batch, done: Committed, seconds: float) -> CommitFigures:
    """The figures of the commit of a batch, which took `seconds`."""
    runs, sequenced = batch.runs, batch.sequenced
    oldest = [found for run in runs if (found := pc.min(_ingested(run)).as_py()) is not None]
    return CommitFigures(
        done.snapshot.table,
        seconds,
        sum(run.rows.num_rows for run in runs),
        sum(run.duplicates.num_rows for run in runs),
        sum(run.rejected.num_rows for run in runs),
        sum(shed.records for run in runs for shed in run.shed),
        sum(filled.records for run in runs for filled in run.filled),
        done.size_bytes,
        min(oldest, default=None),
        sequenced.counts if sequenced else {},
        sequenced.small if sequenced else 0,
        sequenced.large if sequenced else 0,
    )


def lags_of(
    follower: Follower, runs: Sequence[Decided], before: Mapping[Place, Lag]
) -> dict[Place, Lag]:
    """How far the table is behind each partition that is followed; `runs` are decided and not
    committed, oldest first, `before` is what this said last.
    """
    oldest: dict[Place, datetime | None] = {}
    for run in runs:
        for partition in run.first_offset:
            if (run.topic, partition) not in oldest:
                oldest[run.topic, partition] = _oldest(run, partition)
    committed = {
        (topic, partition): offset
        for topic, of in follower.snapshot.offsets.items()
        for partition, offset in of.next_offset.items()
    }
    lags: dict[Place, Lag] = {}
    for place, (start, end) in follower.seen.items():
        offset = committed.get(place, start)
        messages = max(0, end - offset)
        since = None
        if messages:
            last = before.get(place)
            known = last.since if last is not None and last.next_offset == offset else None
            since = oldest.get(place) or known or datetime.now(UTC)
        lags[place] = Lag(offset, messages, since)
    return lags


def _oldest(run: Decided, partition: int) -> datetime | None:
    """The ingestion_timestamp of the partition's first row; None if it has no row in the run."""
    # Rows stand in the log's order: to find the first takes a part of what the least would take.
    first = pc.index(run.rows["log_partition"], partition).as_py()
    return None if first < 0 else _ingested(run)[first].as_py()


def _ingested(run: Decided) -> pa.ChunkedArray:
    return run.rows["ingestion_timestamp"]
