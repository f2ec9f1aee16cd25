"""Records that became rows once, read again from where they came and written to files.

Comes in: the offsets to be read, which of them became no rows, and which commit brought each of the
others. Goes out: durable files with the same rows, each with the commit that first brought it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Broken, Refused
from k2.ingest.decide import Decider
from k2.ingest.known import Known
from k2.ingest.origin import Ints, Origins, Place
from k2.ingest.shed_origin import UNKNOWN
from k2.lake import LakeTable, Snapshot, WrittenFile, sort_indices
from k2.lake.files import delete
from k2.log import Batch, Log, Registry
from k2.model import Topic

NO_OFFSETS: Final = np.zeros(0, np.int64)

_READ_BYTES: Final = 16 << 20
_ROWS_AT_ONCE: Final = 500_000
"""Rows that are held until they become files, one for each of their days."""

Tell = Callable[[int, int], None]
"""Told how many offsets were read, and of how many."""


@dataclass(frozen=True)
class Job:
    """What is to be made again: the rows of the days from `first` to `last` (None: no end) that
    come from the offsets `[first, end)` of `ranges`.

    `others` are offsets that became no rows, `held` those of every row that the table has of these
    days and that can be read; both by place and ascending.
    """

    snapshot: Snapshot
    origins: Origins
    first: date | None
    last: date | None
    ranges: Mapping[Place, Sequence[tuple[int, int]]]
    held: Mapping[Place, Ints]
    others: Mapping[Place, Ints]

    def were_rows(self, place: Place, offsets: Ints) -> npt.NDArray[np.bool_]:
        """Which of these offsets (ascending) became rows."""
        others = self.others.get(place, NO_OFFSETS)
        if len(offsets):
            low, high = np.searchsorted(others, [offsets[0], offsets[-1] + 1])
            others = others[low:high]
        return ~np.isin(offsets, others) & ~self.origins.waiting(place, offsets)


class Rereader(Protocol):
    """Where records are read again from."""

    def rows(
        self, place: Place, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[pa.Table, int, int]]:
        """The rows that records of the offsets `[first, end)` of these ranges became, piece by
        piece, with the offsets `[first, end)` of each piece. Columns as `Decided.rows`.

        Raises `Refused` where they are not there any more.
        """


def make_again(
    of: Callable[[Place], Rereader], table: LakeTable, job: Job, tell: Tell
) -> list[WrittenFile]:
    """Durable files with the rows, read again by `of` each place; none is left behind if that
    fails.

    Raises `Broken` where log, ledgers and rows contradict each other, `Refused` where it is not
    known which commit brought a row in, or it is not there any more.
    """
    maker = _Maker(table, job)
    total = sum(end - first for ranges in job.ranges.values() for first, end in ranges)
    done = 0
    try:
        for place, ranges in sorted(job.ranges.items()):
            for rows, first, end in of(place).rows(place, ranges):
                maker.take(place, rows, first, end)
                done += end - first
                tell(done, total)
        return maker.finish()
    except BaseException:
        delete(file.path for file in maker.files)
        raise


class FromLog:
    """Reads records from the log again."""

    def __init__(self, log: Log, registry: Registry, table: LakeTable, job: Job) -> None:
        self._log = log
        self._registry = registry
        self._table = table
        self._job = job

    def rows(
        self, place: Place, ranges: Sequence[tuple[int, int]]
    ) -> Iterator[tuple[pa.Table, int, int]]:
        """As `Rereader` says."""
        decider = self._decider(place)
        for first, end in ranges:
            offset = first
            while offset < end:
                batches = self._log.read(place[0], place[2], offset, _READ_BYTES)
                if not batches:
                    raise Broken("the log ends before its end offset", place=place[0])
                reached = min(batches[-1].next_offset, end)
                rows = decider.read_again([self._only(batch, end, place) for batch in batches])
                yield rows, offset, reached
                offset = reached

    def _only(self, batch: Batch, end: int, place: Place) -> Batch:
        """The batch's messages before `end` that became rows."""
        keep = (batch.offsets < end) & self._job.were_rows(place, batch.offsets)
        return replace(
            batch,
            offsets=batch.offsets[keep],
            schema_ids=batch.schema_ids[keep],
            values=batch.values.filter(pa.array(keep)),
        )

    def _decider(self, place: Place) -> Decider:
        topic = Topic.parse(place[0])
        assert topic is not None, "only topics of records have offsets in a table"
        snapshot = self._job.snapshot
        known = Known(topic.kind, self._table, snapshot)
        # No fate is decided here, so neither what is known nor the skew is ever asked.
        exchange = snapshot.exchanges[topic.exchange]
        return Decider(topic, place[1], exchange, self._registry, known, timedelta(0))


class _Maker:
    """Rows on their way into files. `files` are those written so far."""

    def __init__(self, table: LakeTable, job: Job) -> None:
        self.files: list[WrittenFile] = []
        self._table = table
        self._job = job
        self._rows: list[pa.Table] = []
        self._checked = 0

    def take(self, place: Place, rows: pa.Table, first: int, end: int) -> None:
        """Take the rows of the offsets `[first, end)` of a place."""
        rows = self._of_the_days(rows)
        offsets = rows["log_offset"].to_numpy()
        commits = self._job.origins.commits(place, offsets)
        if len(unknown := offsets[commits == UNKNOWN]):
            raise Refused(
                "an older K2 brought this record in after it was shed, and did not keep by which "
                "commit",
                place=f"{place[0]}[{place[2]}] offset {int(unknown[0]):,}",
                hint="nothing was changed; --from DAY and --to DAY choose days without such",
            )
        self._check(place, offsets, first, end)
        self._rows.append(rows.append_column("commit_sequence", pa.array(commits)))
        if sum(part.num_rows for part in self._rows) >= _ROWS_AT_ONCE:
            self._flush()

    def finish(self) -> list[WrittenFile]:
        """Write what is left; all files."""
        self._flush()
        if self._checked != sum(len(offsets) for offsets in self._job.held.values()):
            raise Broken(
                "rows of the table lie outside of what its commits brought",
                place=self._table.name,
                hint="nothing was changed; `k2 audit` names them",
            )
        return self.files

    def _check(self, place: Place, made: Ints, first: int, end: int) -> None:
        """Every row that the table has of `[first, end)` must be there again."""
        held = self._job.held.get(place, NO_OFFSETS)
        held = held[slice(*np.searchsorted(held, [first, end]))]
        lacking = held[~np.isin(held, made)]
        if len(lacking):
            raise Broken(
                "the table has a row here, and log and ledgers know of none",
                place=f"{place[0]}[{place[2]}] offset {int(lacking[0]):,}",
                hint="nothing was changed; `k2 audit` says what is wrong",
            )
        self._checked += len(held)

    def _of_the_days(self, rows: pa.Table) -> pa.Table:
        if self._job.first is None and self._job.last is None:
            return rows
        condition = pc.field("log_offset") >= 0
        if self._job.first is not None:
            condition &= pc.field("exchange_date") >= self._job.first
        if self._job.last is not None:
            condition &= pc.field("exchange_date") <= self._job.last
        return rows.filter(condition)

    def _flush(self) -> None:
        parts = [part for part in self._rows if part.num_rows]
        self._rows = []
        if not parts:
            return
        rows = pa.concat_tables(parts).unify_dictionaries().combine_chunks()
        for day in pc.unique(rows["exchange_date"]).sort().to_pylist():
            mine = rows.filter(pc.field("exchange_date") == day)
            mine = mine.take(pa.array(sort_indices(mine)))
            self.files.append(self._table.write(mine, day))
