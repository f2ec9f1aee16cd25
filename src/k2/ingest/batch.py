"""A batch of decided runs on its way into the table: its files, and the one commit that names them.

Comes in: runs, and the snapshot that they were decided on. Goes out: a snapshot with their rows,
their ledgers' entries and the next offsets, or an error and nothing.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pyarrow as pa

from k2.ingest.decide import Decided
from k2.ingest.marks import symbols_in, symbols_of
from k2.ingest.shed import to_ledger
from k2.ingest.tracking import Sequenced
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
from k2.lake.compact import SMALL_DAY, parted
from k2.lake.sort import gather
from k2.model import Exchange


@dataclass(frozen=True)
class Batch:
    """What one commit brings: decided runs (or none, for a commit of gaps alone), the snapshot that
    they were decided on, and the offsets document after it. `sequenced`: what they are to their
    streams, if these are followed.

    `settles`: rows of a large day go at once into so many buckets, as if they had been settled (0:
    no day does). `beside` is asked in place of `is_beside`, where that is too careful.
    """

    runs: list[Decided]
    base: Snapshot
    end: Offsets
    exchanges: tuple[Exchange, ...]
    sequenced: Sequenced | None = None
    settles: int = 0
    beside: Callable[[Snapshot], bool] | None = None

    def is_beside(self, head: Snapshot) -> bool:
        """Whether none of the rows committed since can be the same record as one of these: no
        symbol is in both. So it is where partitions go by symbol.
        """
        others = [file.path for file in head.files.since(self.base.sequence)]
        if not self.runs:
            return not others  # what they brought may have been what is missing
        mine = set().union(*(symbols_of(run.rows) for run in self.runs))
        return not others or symbols_in(others, self.base.sequence).isdisjoint(mine)


@dataclass(frozen=True)
class Committed:
    """The snapshot after a commit, the data files that it brought, the bytes that these and the
    ledgers' files have, and what its records are to their streams.
    """

    snapshot: Snapshot
    paths: frozenset[str]
    size_bytes: int
    sequenced: Sequenced | None


def commit_batch(
    table: LakeTable,
    lake: Lake,
    batch: Batch,
    file_age_max: timedelta,
    on_step: Callable[[str], None],
) -> Committed:
    """Write the batch's files and commit them with its offsets.

    Raises what `LakeTable.commit` raises.
    """
    while True:
        on_step("files")
        begun = time.clock_gettime(time.CLOCK_BOOTTIME)
        files = _write_rows(table, [run.rows for run in batch.runs], batch.settles)
        outbox = _write_ledgers(lake, batch)
        on_step("commit")
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - begun
        if age <= file_age_max.total_seconds():
            break
    summary = {
        "k2.rows": str(sum(run.rows.num_rows for run in batch.runs)),
    }
    snapshot = table.commit(
        Commit(
            tuple(files),
            batch.base.offsets,
            batch.end,
            outbox,
            batch.exchanges,
            shed=tuple(shed.range for run in batch.runs for shed in run.shed),
            filled=tuple(each for run in batch.runs for each in run.filled),
            start_shed=batch.base.shed,
            start_retired=batch.base.retired,
            beside=batch.beside or batch.is_beside,
            summary=summary,
        )
    )
    on_step("answer")
    size_bytes = sum(file.bytes for file in (*files, *outbox))
    paths = frozenset(file.path for file in files)
    return Committed(snapshot, paths, size_bytes, batch.sequenced)


def moved_by(start: Offsets, runs: Sequence[Decided], log_ids: Mapping[str, str]) -> Offsets:
    """The offsets document after these runs."""
    end = dict(start)
    for run in runs:
        before = end[run.topic].next_offset if run.topic in end else {}
        end[run.topic] = TopicOffsets(log_ids[run.topic], {**before, **run.next_offset})
    return end


def follow_on(start: Offsets, runs: Sequence[Decided]) -> bool:
    """Whether each run begins where the one before it ended, and the first where the table is.

    It does not where another writer has committed a partition of theirs meanwhile.
    """
    reached = {(topic, p): o for topic, of in start.items() for p, o in of.next_offset.items()}
    for run in runs:
        for partition, first in run.first_offset.items():
            if reached.get((run.topic, partition), first) != first:
                return False
            reached[run.topic, partition] = run.next_offset[partition]
    return True


def _write_rows(table: LakeTable, runs: Sequence[pa.Table], settles: int) -> list[WrittenFile]:
    """One file a trading date, sorted by symbol and time; of a day that settles one a bucket."""
    if not runs:
        return []
    rows = pa.concat_tables([run for run in runs if run.num_rows] or runs[:1])
    if not rows.num_rows:
        return []
    if "exchange_date" not in rows.column_names:
        return [table.write(rows, None)]
    rows = rows.unify_dictionaries().combine_chunks()
    # Null: the commit that adds the file is the one that brings its rows.
    rows = rows.append_column("commit_sequence", pa.nulls(len(rows), pa.int64()))
    return [file for day, mine in _by_day(rows) for file in _write_day(table, mine, day, settles)]


def _by_day(rows: pa.Table) -> Iterator[tuple[date, pa.Table]]:
    """The rows of each trading date, in the order in which they were."""
    days = rows["exchange_date"].cast(pa.int32()).to_numpy()
    # A filter for each day would read all rows as often as there are days: ten years of a symbol
    # may come in one commit.
    if (days[1:] < days[:-1]).any():
        order = np.argsort(days, kind="stable")
        rows, days = gather(rows, order), days[order]
    starts = np.flatnonzero(np.diff(days, prepend=days[0] - 1))
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(days)], strict=True):
        yield rows["exchange_date"][start].as_py(), rows.slice(start, end - start)


def _write_day(table: LakeTable, rows: pa.Table, day: date, settles: int) -> list[WrittenFile]:
    if not settles or len(rows) <= SMALL_DAY:
        return [table.write(rows.take(pa.array(sort_indices(rows))), day)]
    return [
        table.write(gather(rows, chosen), day, bucket=bucket)
        for bucket, chosen in parted(table.definition, rows, settles)
    ]


def _write_ledgers(lake: Lake, batch: Batch) -> tuple[WrittenFile, ...]:
    """The batch's entries, a file a ledger, to be named in its commit."""
    runs = batch.runs
    ledgers = (
        {}
        if not runs
        else {
            "rejected": pa.concat_tables([run.rejected for run in runs]),
            "duplicates": pa.concat_tables([run.duplicates for run in runs]),
            "shed": to_ledger(
                [shed for run in runs for shed in run.shed],
                [filled for run in runs for filled in run.filled],
                datetime.now(UTC),
            ),
        }
    )
    late = [run.retired for run in runs if run.retired is not None]
    if late:
        ledgers["retired"] = pa.concat_tables(late)
    if batch.sequenced is not None:
        ledgers["gaps"] = batch.sequenced.gaps
    return tuple(
        lake.table(name).write(entries, None)
        for name, entries in ledgers.items()
        if entries.num_rows
    )
