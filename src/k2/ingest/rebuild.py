"""Rows made again from where they came, in the place of those of the table: a damaged file mended.

Comes in: the log, or manifests and the files that they name; the ledgers, which say of each offset
whether it became a row; and the commits, which say when. Goes out: the same rows, each with its
place and the commit that first brought it, in one commit that takes the old files out of the table.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from k2.errors import BadInput, Broken, Conflict, NotFound, Refused
from k2.ingest.known import LINEAGE
from k2.ingest.origin import Ints, Origins, Place, joined
from k2.ingest.remake import NO_OFFSETS, FromLog, Job, Rereader, Tell, make_again
from k2.ingest.shed import shed_entries
from k2.ingest.shed_origin import UNKNOWN, ShedOrigins
from k2.lake import RECORD_TABLES, DataFileRef, Lake, LakeTable, Snapshot
from k2.lake.files import delete
from k2.lake.loads import LoadBook, Loads
from k2.lake.retired import RetiredPlaces
from k2.log import Log, Registry
from k2.model import Topic

_HOLE: Final = 10_000
"""Offsets that no row of the days has are read along up to here: cheaper than beginning again."""

_CITED: Final = pa.schema(
    [
        ("log_topic", pa.string()),
        ("log_id", pa.string()),
        ("log_partition", pa.int32()),
        ("log_offset", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Wanted:
    """The rows of a table that are to be made again: exchange dates, both ends inclusive; None
    leaves an end open. Raises `BadInput` for a table that holds no records, or no day.
    """

    table: str
    first: date | None = None
    last: date | None = None

    def __post_init__(self) -> None:
        if self.table not in RECORD_TABLES:
            raise BadInput(
                f"{self.table!r} is no table of records", expected=", ".join(RECORD_TABLES)
            )
        if self.first is not None and self.last is not None and self.first > self.last:
            raise BadInput(
                "the first day comes after the last", found=f"{self.first} to {self.last}"
            )

    @property
    def whole(self) -> bool:
        """Whether no day is left out."""
        return self.first is None and self.last is None


@dataclass(frozen=True)
class Rebuilt:
    """What was made again, or would be: rows and files before and after, files that could not be
    read, the log's offsets that were read, and the commit that did it (None: none did).
    """

    table: str
    files_before: int
    rows_before: int
    unreadable: tuple[str, ...]
    offsets: int
    files: int | None = None
    rows: int | None = None
    commit: int | None = None


@dataclass(frozen=True)
class _Plan:
    """Files to be replaced, the offsets `[first, end)` to be read for it, and the offsets of every
    row in those of the files that can be read, ascending.
    """

    wanted: Wanted
    snapshot: Snapshot
    origins: Origins
    files: tuple[DataFileRef, ...]
    unreadable: tuple[str, ...]
    ranges: Mapping[Place, Sequence[tuple[int, int]]]
    held: Mapping[Place, Ints]

    @property
    def offsets(self) -> int:
        """How many offsets are to be read."""
        return sum(end - first for found in self.ranges.values() for first, end in found)

    def to_rebuilt(self) -> Rebuilt:
        """What would be made again."""
        rows = sum(file.rows for file in self.files)
        return Rebuilt(self.wanted.table, len(self.files), rows, self.unreadable, self.offsets)

    def to_job(self, others: Mapping[Place, Ints]) -> Job:
        """What is to be made again; `others` are the offsets that became no rows."""
        wanted = self.wanted
        return Job(
            *(self.snapshot, self.origins, wanted.first, wanted.last),
            *(self.ranges, self.held, others),
        )


def rebuild(
    log: Log,
    registry: Registry,
    lake: Lake,
    wanted: Wanted,
    *,
    dry_run: bool = False,
    sources: Path | None = None,
    tell: Tell = lambda done, total: None,
    on_step: Callable[[str], None] = lambda step: None,
) -> Rebuilt:
    """Make the wanted rows again and put them in the place of the files that have them.

    A row is every record of the log, up to the table's offsets, that no ledger calls rejected, a
    duplicate or retired, and that does not wait there because it was shed. It keeps its place in
    the log, and its `commit_sequence` is written out: the commit that first brought it, found by
    the offsets after each commit, and for what was shed by what each commit filled. So every answer
    as of a time before is the same afterwards. Writers may commit meanwhile; killed anywhere,
    nothing has happened but files that nothing names. Takes eight bytes of memory a row, sixteen
    for each record that was shed, and some more.

    Records of files that went straight into the table are read from these again, which must be as
    they were: in the folder `sources`, or where they lay then.

    Raises `Refused` where log or files no longer hold what is needed, or may not (nothing that
    cannot be made again is ever taken out), and for rows that an older K2 brought in after they
    were shed. `Broken` where log, ledgers and rows contradict each other, `Conflict` if somebody
    else replaced the same files, and as log and registry do.
    """
    table = lake.table(wanted.table)
    plan = _plan(log, lake, table, wanted)
    found = plan.to_rebuilt()
    if dry_run or not (plan.files or plan.offsets):
        return found
    on_step("files")
    job = plan.to_job(_others(lake, plan))
    in_log, loaded = FromLog(log, registry, table, job), _from_files(lake, table, job, sources)

    def of(place: Place) -> Rereader:
        return loaded if _is_loaded(place) else in_log

    files = make_again(of, table, job, tell)
    on_step("commit")
    try:
        done = table.replace([file.path for file in plan.files], files)
    except Conflict:
        delete(file.path for file in files)
        raise
    on_step("answer")
    rows = sum(file.rows for file in files)
    return replace(found, files=len(files), rows=rows, commit=done.sequence)


def _is_loaded(place: Place) -> bool:
    topic = Topic.of_row(place[0])
    return topic is not None and topic.loaded


def _from_files(lake: Lake, table: LakeTable, job: Job, folder: Path | None) -> Rereader:
    # Only imported here: it brings the adapters of files with it.
    from k2.ingest.reread import FromFiles

    return FromFiles(LoadBook.of(lake.folder).read(), table, job, folder)


def _plan(log: Log, lake: Lake, table: LakeTable, wanted: Wanted) -> _Plan:
    snapshot = table.snapshot()
    origins = _origins(lake, wanted.table, snapshot.sequence)
    files = snapshot.files.select(dates=(wanted.first, wanted.last))
    held, unreadable = _held([file.path for file in files])
    known = [np.unique(origins.commits(place, offsets)) for place, offsets in held.items()]
    doubted = [np.zeros(0, np.int64)]
    for path in unreadable:
        least, greatest = snapshot.files.commits(path)
        doubted.append(np.append(np.arange(least, greatest + 1), UNKNOWN))
    maybe = origins.ranges(np.unique(np.concatenate(doubted)))
    loads = LoadBook.of(lake.folder).read()
    every = None if wanted.whole else np.unique(np.concatenate([*known, *doubted]))
    ranges = {}
    refused: list[str] = []
    for place, found in origins.ranges(every).items():
        start, end, why = _kept(log, loads, snapshot, place)
        needed = held.get(place, NO_OFFSETS)
        gone = needed[(needed < start) | (needed >= end)]
        gaps = [(low, high) for low, high in maybe.get(place, ()) if low < start or high > end]
        if len(gone) or gaps:
            low = min([int(o) for o in gone[:1]] + [low for low, _ in gaps])
            high = max([int(o) + 1 for o in gone[-1:]] + [high for _, high in gaps])
            refused.append(f"{place[0]}[{place[2]}] offsets {low:,} to {high - 1:,}: {why}")
        starts = np.array([max(low, start) for low, _ in found], np.int64)
        ends = np.array([min(high, end) for _, high in found], np.int64)
        if (chosen := starts < ends).any():
            ranges[place] = joined(starts[chosen], ends[chosen], _HOLE)
    if refused:
        raise Refused(
            "the log no longer holds all that these rows were made from",
            place=wanted.table,
            found="; ".join(refused),
            hint="nothing was changed; --from DAY and --to DAY choose days that the log holds",
        )
    return _Plan(wanted, snapshot, origins, files, unreadable, ranges, held)


def _origins(lake: Lake, table: str, until: int) -> Origins:
    """Which commit up to `until` brought which offsets. Raises `Broken` for a damaged ledger."""
    # What later commits brought in stands in files that are not replaced. The ledger before the
    # commits: these know all that it says was filled.
    try:
        entries = shed_entries(lake, table)
    except (OSError, pa.ArrowException) as error:
        raise _damaged(error) from error
    commits = lake.commits_of(table)
    shed = ShedOrigins(entries, commits, until)
    return Origins(commits.filter(pc.field("commit") <= until), shed)


def _kept(log: Log, loads: Loads, snapshot: Snapshot, place: Place) -> tuple[int, int, str]:
    """The offsets `[start, end)` that can be read of a place, and what that means in words."""
    topic, log_id, partition = place
    if _is_loaded(place):
        if loads.last is None or loads.last.log_id != log_id:
            return 0, 0, "the manifests of these loads are gone"
        of, end = snapshot.offsets.get(topic), loads.ends.get(topic, 0)
        if loads.may_go_on and of is not None:
            end = max(end, of.next_offset[partition])
        return 0, end, f"manifests tell of 0 to {end - 1:,}"
    try:
        if log.identity(topic) != log_id:
            return 0, 0, "the topic was made anew"
        start, end = log.start_offset(topic, partition), log.end_offset(topic, partition)
    except NotFound:
        return 0, 0, "the topic is gone"
    return start, end, f"the log has {start:,} to {end - 1:,}"


def _held(paths: Sequence[str]) -> tuple[dict[Place, Ints], tuple[str, ...]]:
    """The offsets that rows of the files have, ascending and once each, and the files that cannot
    be read.
    """
    found: dict[Place, list[Ints]] = {}
    unreadable = []
    for path in paths:
        try:
            rows = pq.ParquetFile(path).read(columns=list(LINEAGE)).cast(_CITED)
        except (OSError, pa.ArrowException):
            unreadable.append(path)
            continue
        for place, offsets in _by_place(rows).items():
            found.setdefault(place, []).append(offsets)
    return {p: np.unique(np.concatenate(o)) for p, o in found.items()}, tuple(unreadable)


def _by_place(rows: pa.Table) -> dict[Place, Ints]:
    """Offsets of the rows by the place that they come from."""
    found = {}
    names = ["log_topic", "log_id", "log_partition"]
    for place in rows.group_by(names).aggregate([]).to_pylist():
        mine = pc.field("log_offset") >= 0
        for name in names:
            mine &= pc.field(name) == place[name]
        key = (place["log_topic"], place["log_id"], place["log_partition"])
        found[key] = rows.filter(mine)["log_offset"].to_numpy()
    return found


def _others(lake: Lake, plan: _Plan) -> dict[Place, Ints]:
    """The offsets of its places that are no row, ascending: rejected, duplicates, retired."""
    topics = sorted({topic for topic, _, _ in plan.ranges})
    paths = [file.path for name in ("rejected", "duplicates") for file in lake.ledger_files(name)]
    found = _retired(lake, plan)
    if not paths:
        return found
    try:
        rows = ds.dataset(paths, schema=_CITED, format="parquet").to_table(
            filter=pc.field("log_topic").isin(topics)
        )
    except (OSError, pa.ArrowException) as error:
        raise _damaged(error) from error
    for place, offsets in _by_place(rows).items():
        found[place] = np.unique(np.concatenate([offsets, found.get(place, NO_OFFSETS)]))
    return found


def _retired(lake: Lake, plan: _Plan) -> dict[Place, Ints]:
    """The offsets of the plan's places whose days are not kept any more."""
    retired = RetiredPlaces(lake, {plan.wanted.table: plan.snapshot.sequence})
    return {
        place: retired.offsets(place, ranges[0][0], ranges[-1][1])
        for place, ranges in plan.ranges.items()
    }


def _damaged(error: Exception) -> Broken:
    return Broken(
        f"a ledger cannot be read, and it says which records became no rows: {error}",
        hint="restore the file; nothing was changed",
    )
