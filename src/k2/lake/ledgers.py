"""Ledgers: what the outbox of a table's commits becomes, and commits found by time, tag or id.

A table's own snapshot is the only truth. Its outbox and its snapshots are taken into the ledgers by
whoever comes next, each exactly once: a ledger remembers, with the rows themselves, up to which
commit of each table it has taken them.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.errors import BadInput, Broken, Conflict, NotFound, Refused
from k2.lake.commit import Change
from k2.lake.files import WrittenFile, delete
from k2.lake.index import GREATEST, LEAST, DataFileRef, to_microseconds
from k2.lake.offsets import ABSORBED, FILLED, OFFSETS
from k2.lake.snapshot import Head, Snapshot, to_datetime
from k2.lake.table import LakeTable
from k2.lake.tables import RECORD_TABLES, definition
from k2.model import TIMESTAMP_TYPE, plain_schema

COMMITS: Final = "commits"
ATTEMPTS: Final = 20


class Tables(Protocol):
    """The lake, as far as ledgers need it."""

    def table(self, name: str) -> LakeTable:
        """The table, made if missing."""

    def has(self, name: str) -> bool:
        """Is there such a table?"""

    def tables(self) -> list[str]:
        """Names of the tables that there are."""


# ------------------------------------------------------------------------------- absorbing


def absorb(lake: Tables, name: str) -> int:
    """Take the table's outbox into the ledgers, and its commits into the commits ledger.

    The number of files and commits that were taken; 0 if all were. Each counts once, whoever else
    does the same at the same time, and whenever this is killed.
    """
    head = lake.table(name).head()
    taken = 0
    for ledger in sorted({entry.ledger for entry in head.snapshot.outbox}):
        taken += _take(lake.table(ledger), head.snapshot, _outbox_files)
    if name in RECORD_TABLES:

        def rows(ledger: LakeTable, _: Snapshot, done: int) -> list[WrittenFile]:
            found = _rows(name, head, done)
            return [ledger.write(found, None)] if found.num_rows else []

        taken += _take(lake.table(COMMITS), head.snapshot, rows, made_here=True)
    return taken


Files = Callable[[LakeTable, Snapshot, int], list[WrittenFile]]


def _take(ledger: LakeTable, main: Snapshot, files_after: Files, *, made_here: bool = False) -> int:
    """Commit to the ledger what it lacks of the table's commits up to `main`.

    Files that are `made_here`, a row a commit, go again when others were faster; the outbox's
    never go.
    """
    for _ in range(ATTEMPTS):
        done = ledger.snapshot().absorbed.get(main.table, 0)
        files = files_after(ledger, main, done)
        if not files:
            return 0
        try:
            ledger.apply(_taking(main, done, files))
        except Conflict:
            if made_here:
                delete(file.path for file in files)
            continue
        return sum(file.rows for file in files) if made_here else len(files)
    raise Conflict("others keep taking the same commits into a ledger", place=ledger.name)


def _taking(main: Snapshot, done: int, files: Sequence[WrittenFile]) -> Change:
    def properties(head: Snapshot, _: int) -> Mapping[str, str]:
        if head.absorbed.get(main.table, 0) != done:
            raise Conflict(
                "somebody else has taken these commits into the ledger", place=head.table
            )
        return {ABSORBED: json.dumps({**head.absorbed, main.table: main.sequence})}

    return Change(uuid4().hex, tuple(files), properties, {f"k2.absorbed-{main.table}": str(done)})


def _outbox_files(ledger: LakeTable, main: Snapshot, done: int) -> list[WrittenFile]:
    entries = (e for e in main.outbox if e.ledger == ledger.name and e.sequence > done)
    return [ledger.registered(entry.path) for entry in entries]


# ------------------------------------------------------------------------------- reading


def ledger_files(lake: Tables, name: str) -> tuple[DataFileRef, ...]:
    """Every file of the ledger: those that it has taken and those still named in an outbox.

    The outboxes are read first: what they lose meanwhile, the ledger has.
    """
    mains = [lake.table(main).snapshot() for main in lake.tables() if main != name]
    ledger = lake.table(name).snapshot() if lake.has(name) else None
    files = ledger.files.select() if ledger else ()
    waiting = tuple(
        _outbox_ref(entry.path, entry.sequence, entry.rows)
        for main in mains
        for entry in main.outbox
        if entry.ledger == name
        and entry.sequence > (ledger.absorbed.get(main.table, 0) if ledger else 0)
    )
    return (*files, *waiting)


def _outbox_ref(path: str, sequence: int, rows: int) -> DataFileRef:
    try:
        size = Path(path).stat().st_size
    except OSError as error:
        raise Broken("a file that a commit named is not there", place=path) from error
    return DataFileRef(path, sequence, rows, size, True, False, None, None, None, None, None)


def commits_of(lake: Tables, name: str) -> pa.Table:
    """Every commit of the table, oldest first, also those whose snapshot is expired.

    Columns of `definition("commits")`. A tag is a row of its own (operation `tag`).
    """
    head = lake.table(name).head()
    absorbed, kept = 0, [definition(COMMITS).arrow.empty_table()]
    if lake.has(COMMITS):
        ledger = lake.table(COMMITS).snapshot()
        absorbed = ledger.absorbed.get(name, 0)
        kept = [_read(file, table=name) for file in ledger.files.select()]
    found = pa.concat_tables([*kept, _rows(name, head, absorbed)])
    return found.sort_by("commit")


def _read(file: DataFileRef, **equal: object) -> pa.Table:
    """The file's rows with these values, as commits; columns that it lacks are null."""
    found = pq.ParquetFile(file.path).read()
    schema = definition(COMMITS).arrow
    columns = [
        found[field.name].cast(field.type)
        if field.name in found.column_names
        else pa.nulls(found.num_rows, field.type)
        for field in schema
    ]
    rows = pa.table(columns, schema=schema)
    for column, value in equal.items():
        rows = rows.filter(pc.equal(rows[column], value))
    return rows


def _rows(name: str, head: Head, after: int) -> pa.Table:
    """The commits ledger's rows of the snapshots that the table still has, after that commit."""
    found: list[dict[str, Any]] = []
    for snapshot in head.metadata["snapshots"]:
        summary = snapshot["summary"]
        if not after < snapshot["sequence-number"] <= head.snapshot.sequence:
            continue
        added = int(summary.get("added-records", 0)) - int(summary.get("deleted-records", 0))
        found.append(
            {
                "table": name,
                "commit": snapshot["sequence-number"],
                "snapshot_id": snapshot["snapshot-id"],
                "committed_at": to_datetime(snapshot["timestamp-ms"]),
                "rows": added,
                "duplicates": int(summary.get("k2.duplicates", 0)),
                "rejected": int(summary.get("k2.rejected", 0)),
                "offsets": summary.get(OFFSETS, "{}"),
                "tag": None,
                "operation": summary["operation"],
                "filled": summary.get(FILLED),
            }
        )
    return to_rows(COMMITS, found)


def to_rows(ledger: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Entries of a ledger, by the names of its columns, as a table."""
    schema = definition(ledger).arrow
    return pa.Table.from_pylist(list(rows), schema=plain_schema(schema)).cast(schema)


# ------------------------------------------------------------------------------- as of, tags


def resolve_as_of(lake: Tables, name: str, when: datetime | int | str) -> int:
    """The number of the table's last commit at that moment: rows of later ones are not to be seen.

    `when`: a zoned time (a commit at that very moment is in), a snapshot id, or as text either of
    these (ISO 8601) or a tag. An id or tag of another table stands for the time of that commit.
    Raises `NotFound` if nothing was committed by then or nothing is called so, `BadInput` for a
    time without zone.
    """
    moment = _parse(when)
    if not isinstance(moment, datetime):
        row = _named(lake, name, moment)
        if row["table"] == name:
            return int(row["commit"])
        moment = row["committed_at"]
    if moment.tzinfo is None:
        raise BadInput("a time needs a zone", found=str(moment), expected=f"{moment}+00:00")
    return _at(lake, name, moment)


def _parse(when: datetime | int | str) -> datetime | int | str:
    if isinstance(when, str):
        if when.isdecimal():
            return int(when)
        try:
            return datetime.fromisoformat(when)
        except ValueError:
            return when
    return when


def _at(lake: Tables, name: str, moment: datetime) -> int:
    head = lake.table(name).head()
    absorbed = 0
    files: list[DataFileRef] = []
    if lake.has(COMMITS):
        ledger = lake.table(COMMITS).snapshot()
        absorbed = ledger.absorbed.get(name, 0)
        files = list(ledger.files.select())
    newest = _last_by(_rows(name, head, absorbed), moment)
    if newest:
        return newest
    end = to_microseconds(moment)
    found, found_at = 0, LEAST
    for file in sorted(files, key=lambda f: f.max_timestamp or GREATEST, reverse=True):
        if (file.max_timestamp or GREATEST) < found_at:
            break  # all that is left is older
        if (file.min_timestamp or 0) <= end:
            rows = _read(file, table=name)
            commit = _last_by(rows, moment)
            if commit > found:
                found = commit
                at = rows.filter(pc.equal(rows["commit"], commit))["committed_at"][0].as_py()
                found_at = to_microseconds(at)
    if found:
        return found
    raise NotFound(
        f"nothing was committed to {name} by {_told(moment)}",
        hint=_first(commits_of(lake, name)),
    )


def _last_by(rows: pa.Table, moment: datetime) -> int:
    """The last commit by then; 0 if there is none. A tag was given later than its commit."""
    by_then = pc.less_equal(rows["committed_at"], pa.scalar(moment, TIMESTAMP_TYPE))
    lived = pc.not_equal(rows["operation"], "tag")
    return int(pc.max(rows.filter(pc.and_(by_then, lived))["commit"]).as_py() or 0)


def _first(rows: pa.Table) -> str:
    if not rows.num_rows:
        return "nothing was ever committed to it"
    return f"the first commit was at {_told(rows['committed_at'][0].as_py())}"


def _told(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _named(lake: Tables, name: str, called: int | str) -> Mapping[str, Any]:
    """The row of the commit with that snapshot id or tag: this table's, or else another's."""
    column = "snapshot_id" if isinstance(called, int) else "tag"
    others = [other for other in RECORD_TABLES if other != name and lake.has(other)]
    for table in (name, *others):
        rows = commits_of(lake, table)
        rows = rows.filter(pc.equal(rows[column], called))
        if rows.num_rows:
            found: Mapping[str, Any] = rows.slice(0, 1).to_pylist()[0]
            return found
    what = "snapshot" if isinstance(called, int) else "tag"
    raise NotFound(f"there is no {what} {called}", hint="k2 snapshots lists what there is")


def tag(lake: Tables, name: str, called: str, commit: int | None = None) -> int:
    """Give a state of the table (by default the present one) a name for good; its commit.

    Raises `Refused` for a name that the table has already, or that could be a time or an id, and
    `NotFound` for a commit that is none.
    """
    wanted = lake.table(name).snapshot().sequence if commit is None else commit
    if not tag_all(lake, name, {called: wanted}):
        raise Refused(f"the tag {called} is taken", place=name)
    return wanted


def tag_all(lake: Tables, name: str, wanted: Mapping[str, int]) -> list[str]:
    """Give commits of the table names for good, all at once; those names that it did not have yet.

    A name is given once, whoever else does the same. Raises `Refused` for a name that could be a
    time or an id, `NotFound` for a commit that is none.
    """
    for called in wanted:
        if not isinstance(_parse(called), str):
            raise Refused("a tag may not look like a time or a snapshot id", found=called)
    absorb(lake, name)
    ledger = lake.table(COMMITS)
    commits = {row["commit"]: row for row in _lived(commits_of(lake, name)).to_pylist()}
    for _ in range(ATTEMPTS):
        seen = ledger.snapshot()
        taken = tags_in(seen.files.select(), name)
        fresh = {called: commit for called, commit in wanted.items() if called not in taken}
        if not fresh:
            return []
        rows = [_tagged(commits, name, *one) for one in fresh.items()]
        file = ledger.write(to_rows(COMMITS, rows), None)
        try:
            ledger.apply(Change(uuid4().hex, (file,), _unless_changed(seen), {}))
        except Conflict:
            delete([file.path])
            continue
        return list(fresh)
    raise Conflict("others keep giving tags at the same time", place=name)


def tags_in(files: Iterable[DataFileRef], name: str) -> set[str]:
    """The names that commits of the table have, in these files of the commits ledger."""
    found = (_read(file, table=name, operation="tag")["tag"].to_pylist() for file in files)
    return {called for tags in found for called in tags}


def _lived(rows: pa.Table) -> pa.Table:
    return rows.filter(pc.not_equal(rows["operation"], "tag"))


def _tagged(
    commits: Mapping[int, Mapping[str, Any]], name: str, called: str, commit: int
) -> Mapping[str, Any]:
    if commit not in commits:
        raise NotFound(f"there is no commit {commit}", place=name)
    given = {"tag": called, "operation": "tag", "rows": 0, "duplicates": 0, "rejected": 0}
    return {**commits[commit], **given, "filled": None}


def _unless_changed(seen: Snapshot) -> Callable[[Snapshot, int], Mapping[str, str]]:
    """No properties; but a conflict, where the ledger is no longer as it was seen."""

    def properties(head: Snapshot, _: int) -> Mapping[str, str]:
        if head.sequence != seen.sequence:
            raise Conflict("somebody else has put entries into the ledger", place=head.table)
        return {}

    return properties
