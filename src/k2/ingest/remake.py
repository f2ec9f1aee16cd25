"""Records that became rows once, read from the log again and written to files.

Comes in: the offsets to be read, which of them became no rows, and which commit brought each of the
others. Goes out: durable files with the same rows, each with the commit that first brought it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

import numpy as np
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


def make_again(
    log: Log, registry: Registry, table: LakeTable, job: Job, tell: Tell
) -> list[WrittenFile]:
    """Durable files with the rows; none is left behind if that fails.

    Raises `Broken` where log, ledgers and rows contradict each other, `Refused` where it is not
    known which commit brought a row in.
    """
    maker = _Maker(registry, table, job)
    total = sum(end - first for ranges in job.ranges.values() for first, end in ranges)
    done = 0
    try:
        for place, ranges in sorted(job.ranges.items()):
            for first, end in ranges:
                offset = first
                while offset < end:
                    batches = log.read(place[0], place[2], offset, _READ_BYTES)
                    if not batches:
                        raise Broken("the log ends before its end offset", place=place[0])
                    reached = min(batches[-1].next_offset, end)
                    rows = [_only(batch, end, place, job) for batch in batches]
                    maker.take(place, rows, offset, reached)
                    done += reached - offset
                    offset = reached
                    tell(done, total)
        return maker.finish()
    except BaseException:
        delete(file.path for file in maker.files)
        raise


def _only(batch: Batch, end: int, place: Place, job: Job) -> Batch:
    """The batch's messages before `end` that became rows."""
    others = job.others.get(place, NO_OFFSETS)
    if len(batch.offsets):
        others = others[slice(*np.searchsorted(others, [batch.offsets[0], batch.next_offset]))]
    keep = (batch.offsets < end) & ~np.isin(batch.offsets, others)
    keep &= ~job.origins.waiting(place, batch.offsets)
    return replace(
        batch,
        offsets=batch.offsets[keep],
        schema_ids=batch.schema_ids[keep],
        values=batch.values.filter(pa.array(keep)),
    )


class _Maker:
    """Rows on their way into files. `files` are those written so far."""

    def __init__(self, registry: Registry, table: LakeTable, job: Job) -> None:
        self.files: list[WrittenFile] = []
        self._registry = registry
        self._table = table
        self._job = job
        self._deciders: dict[str, Decider] = {}
        self._rows: list[pa.Table] = []
        self._checked = 0

    def take(self, place: Place, batches: Sequence[Batch], first: int, end: int) -> None:
        """Take the messages that became rows, of the offsets `[first, end)` of a place."""
        rows = self._of_the_days(self._decider(place).read_again(batches))
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

    def _decider(self, place: Place) -> Decider:
        name, log_id, _ = place
        if name not in self._deciders:
            topic = Topic.parse(name)
            assert topic is not None, "only topics of records have offsets in a table"
            snapshot = self._job.snapshot
            known = Known(topic.kind, self._table, snapshot)
            # No fate is decided here, so neither what is known nor the skew is ever asked.
            self._deciders[name] = Decider(
                topic,
                log_id,
                snapshot.exchanges[topic.exchange],
                self._registry,
                known,
                timedelta(0),
            )
        return self._deciders[name]
