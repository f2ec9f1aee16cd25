"""Retention: whole days and symbols leave a table for good, in commits of their own.

Comes in: a table, and a judge that says which day and symbol is to go. Goes out: files without
these rows in the place of those that had them, and entries of a ledger that say what went, by which
rule, and where in the log it had come from. A day and symbol that went is closed: from that commit
on, the table never has a row of it.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Final, Protocol
from uuid import uuid4

import pyarrow as pa

from k2.errors import Broken, Conflict
from k2.lake.commit import Change, replacing
from k2.lake.compact import Step, check_file, read_file
from k2.lake.files import WrittenFile, delete
from k2.lake.index import DataFileRef
from k2.lake.offsets import (
    OFFSETS,
    RETIRED,
    RetiredUpTo,
    offsets_to_json,
    retired_to_json,
)
from k2.lake.retired import LEDGER
from k2.lake.retiring import Entries, Going, Group, Judge, Lot, Lots, look_at
from k2.lake.snapshot import Snapshot
from k2.lake.sort import Bucket

if TYPE_CHECKING:
    from k2.lake.table import LakeTable

_ROWS_AT_ONCE: Final = 8 << 20
"""Rows that one commit retires at least, if there are so many: a commit for each of a thousand days
would push a thousand snapshots out."""


class Tables(Protocol):
    """The lake, as far as this needs it."""

    def table(self, name: str) -> "LakeTable":
        """The table, made if missing."""

    def has(self, name: str) -> bool:
        """Is there such a table?"""

    def absorb(self, name: str) -> int:
        """Take the table's outbox and commits into the ledgers."""


@dataclass(frozen=True)
class Retired:
    """What was retired of a table, or would be: rows that go and those that pins hold, how many
    files had such rows, the bytes that they had more, and commits. `doubtful`: days that stay,
    since another engine has rewritten files of them.
    """

    table: str
    lots: tuple[Lot, ...]
    held: tuple[Lot, ...]
    files: int
    bytes: int
    commits: int
    doubtful: int

    @property
    def rows(self) -> int:
        """How many rows go."""
        return sum(lot.rows for lot in self.lots)


Seen = MutableMapping[str, Hashable]
"""Of files that had nothing to go: what that verdict hung on (`Judge.concerns`)."""


def retire(
    lake: Tables,
    name: str,
    judge: Judge,
    *,
    seen: Seen | None = None,
    dry_run: bool = False,
    may_go_on: Callable[[], bool] = lambda: True,
    on_step: Step = lambda step: None,
) -> Retired:
    """Take out what the judge lets go, oldest days first; nothing is changed with `dry_run`.

    A day goes as a whole, in one commit with those beside it. Writers, readers and compaction may
    run meanwhile; killed anywhere, either nothing has happened or all of a commit. Where others
    were faster, the next call goes on. `seen` is kept by whoever calls again and again. Raises
    `Broken` where a file is not what the table says of it, and as `LakeTable.apply` does.
    """
    table = lake.table(name)
    told = _Told(name)
    if not dry_run:
        _let_go(lake, table)
    seen = {} if seen is None else seen
    for path in seen.keys() - set(table.snapshot().files.columns.path.tolist()):
        del seen[path]
    looked: set[date] = set()
    while may_go_on():
        job = _find(table.snapshot(), judge, seen, looked, told, may_go_on)
        if not job.going:
            break
        if dry_run:
            told.would(job)
        elif not _commit(lake, table, job, judge, told, on_step):
            break
    if not dry_run:
        on_step("let go")
        _let_go(lake, table)
    return told.retired()


@dataclass(frozen=True)
class _Job:
    """Days whose rows go in one commit, decided on the snapshot `base`: files of each."""

    base: Snapshot
    going: Mapping[date, Sequence[Going]]


class _Told:
    """What is told of it in the end."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._held, self._gone = Lots(), Lots()
        self._files = self._bytes = self._commits = 0
        self.doubtful = 0

    def held(self, day: date, going: Going) -> None:
        """Rows of a file that pins hold."""
        for group in going.groups:
            if group.verdict.pins:
                self._held.add(day, group)

    def would(self, job: _Job) -> None:
        """What would go; of a file that stays in part, as many bytes as rows."""
        files = [each for found in job.going.values() for each in found]
        self._count(job, sum(each.file.bytes * each.rows // each.file.rows for each in files))

    def did(self, job: _Job, files: Sequence[WrittenFile]) -> None:
        """What went, where these files took the place of those that had such rows."""
        before = sum(each.file.bytes for found in job.going.values() for each in found)
        self._count(job, before - sum(file.bytes for file in files))

    def _count(self, job: _Job, freed: int) -> None:
        self._files += sum(len(found) for found in job.going.values())
        self._bytes += freed
        self._commits += 1
        for day, group in _gone(job):
            self._gone.add(day, group)

    def retired(self) -> Retired:
        """All of it."""
        return Retired(
            self._table,
            self._gone.lots(held=False),
            self._held.lots(held=True),
            self._files,
            self._bytes,
            self._commits,
            self.doubtful,
        )


def _gone(job: _Job) -> Iterator[tuple[date, Group]]:
    for day, found in job.going.items():
        for each in found:
            for group in each.groups:
                if not group.verdict.pins:
                    yield day, group


# ----------------------------------------------------------------------- what is to go


def _find(
    snapshot: Snapshot,
    judge: Judge,
    seen: Seen,
    looked: set[date],
    told: _Told,
    may_go_on: Callable[[], bool],
) -> _Job:
    """The oldest days that were not `looked` at and of which rows are to go, for one commit."""
    doubtful = snapshot.files.doubtful(snapshot.foreign)
    going: dict[date, Sequence[Going]] = {}
    rows = 0
    for day, files in sorted(_days(snapshot).items()):
        if rows >= _ROWS_AT_ONCE:
            break
        key = judge.concerns(day)
        if day in looked or key is None or not may_go_on():
            continue
        looked.add(day)
        if any(file.path in doubtful for file, _ in files):
            # The commits of rows that stay would be written out wrongly, for good.
            told.doubtful += 1
            continue
        found = []
        for file, bucket in files:
            if seen.get(file.path) == key:
                continue
            each = look_at(file, bucket, day, judge)
            told.held(day, each)
            if each.gone.any():
                found.append(each)
            elif not each.groups:
                seen[file.path] = key
        if found:
            going[day] = found
            rows += sum(each.rows for each in found)
    return _Job(snapshot, going)


def _days(snapshot: Snapshot) -> dict[date, list[tuple[DataFileRef, Bucket | None]]]:
    found: dict[date, list[tuple[DataFileRef, Bucket | None]]] = {}
    for (day, bucket), files in snapshot.files.by_partition().items():
        if day is not None:
            found.setdefault(day, []).extend((file, bucket) for file in files)
    return found


# ----------------------------------------------------------------------- doing it


def _commit(
    lake: Tables, table: "LakeTable", job: _Job, judge: Judge, told: _Told, on_step: Step
) -> bool:
    """Take out the job's rows; False if others were faster, and nothing was done."""
    entries = Entries(table.name)
    for day, group in _gone(job):
        entries.add(day, group)
    files: list[WrittenFile] = []
    try:
        on_step("write")
        for day, found in job.going.items():
            files += [_without(table, day, each) for each in found if not each.gone.all()]
        # So that the commits ledger has every snapshot that the next commit lets go of.
        on_step("absorb")
        lake.absorb(table.name)
        on_step("commit")
        table.apply(_change(lake, table, job, files, entries, judge))
    except Conflict:
        delete(file.path for file in files)
        return False
    except Broken:
        delete(file.path for file in files)
        raise
    on_step("answer")
    told.did(job, files)
    return True


def _without(table: "LakeTable", day: date, going: Going) -> WrittenFile:
    """The file's other rows as a file that takes its place, each with its commit written out."""
    rows = read_file(table.definition, going.file)
    kept = rows.filter(pa.array(~going.gone))
    file = table.write(kept, day, bucket=going.bucket)
    check_file(table.definition, file, kept)
    return file


def _change(
    lake: Tables,
    table: "LakeTable",
    job: _Job,
    files: Sequence[WrittenFile],
    entries: Entries,
    judge: Judge,
) -> Change:
    base = job.base

    def properties(head: Snapshot, sequence: int) -> Mapping[str, str]:
        if head.retired != base.retired:
            raise Conflict("somebody else has retired rows meanwhile", place=table.name)
        late = {file.exchange_date for file in head.files.since(base.sequence)}
        if not late.isdisjoint(job.going):
            # What is closed has no row: they would be none that the ledger names.
            raise Conflict("records came to a day that is to go", place=table.name)
        days = dict(head.retired.days)
        for exchange, day in entries.days.items():
            days[exchange] = max(day, days.get(exchange, day))
        retired = retired_to_json(RetiredUpTo(sequence, days))
        return {OFFSETS: offsets_to_json(head.offsets), RETIRED: retired}

    def write_entries(sequence: int) -> WrittenFile:
        now = datetime.fromtimestamp(table.now_ms() / 1000, UTC)
        return lake.table(LEDGER).write(entries.to_table(sequence, now), None)

    removed = frozenset(each.file.path for found in job.going.values() for each in found)
    return Change(
        uuid4().hex,
        tuple(files),
        properties,
        {"k2.rows": "0"},
        removed,
        entries=write_entries,
        guard=judge.check,
    )


def _let_go(lake: Tables, table: "LakeTable") -> None:
    """Have the table let go of snapshots that name files of retired rows, so that these files are
    removed in time: by an empty commit, if there are such snapshots.
    """
    retired = table.snapshot().retired.commit
    if not retired:
        return
    old = table.head().metadata["snapshots"]
    if all(snapshot["sequence-number"] >= retired for snapshot in old):
        return
    lake.absorb(table.name)
    head = table.head()
    ids = table.expired(head.metadata)
    before = {
        s["snapshot-id"] for s in head.metadata["snapshots"] if s["sequence-number"] < retired
    }
    if ids & before:
        table.apply(replacing((), ()))
