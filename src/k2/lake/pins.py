"""Pins: datasets that are kept by name, in a ledger that is only ever appended to.

A pin says which rows it is of (a commit, and a question) and what their content hashes to. It is a
legal hold besides: whoever deletes rows must ask `pins_of` first.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from k2.errors import Conflict, NotFound, Refused
from k2.lake.commit import Change
from k2.lake.files import delete
from k2.lake.index import DataFileRef
from k2.lake.ledgers import ATTEMPTS, Tables, to_rows
from k2.lake.snapshot import Snapshot
from k2.lake.tables import definition

PINS: Final = "pins"
PINNED, REMOVED = "pinned", "removed"


@dataclass(frozen=True)
class Dataset:
    """A dataset that is pinned: rows of `table` by its `commit` (inclusive), as corrections up to
    `corrections_commit` left them (None: of a kind that is not corrected; 0: there were none).

    `question`, `fields`, `offsets` and `days` are JSON: which of the rows, the columns with their
    types, the log's offsets after the commit, and how many rows each trading date has. `hash` is
    SHA-256 in hexadecimal, of the form `hash_definition`. `schema_id` is Iceberg's number of the
    schema that the table had, where it was known. `id` is given by the ledger.
    """

    name: str
    pinned_at: datetime
    author: str | None
    note: str | None
    table: str
    commit: int
    snapshot_id: int | None
    corrections_commit: int | None
    question: str
    fields: str
    schema_id: int | None
    offsets: str
    rows: int
    days: str
    hash: str
    hash_definition: int
    id: str = ""


def pins_of(lake: Tables) -> dict[str, Dataset]:
    """The pins that there are, by name, in the order of their names."""
    if not lake.has(PINS):
        return {}
    return _standing(lake.table(PINS).snapshot())


def pins_commit(lake: Tables) -> int:
    """The last commit of the ledger: as long as it is the same, so are the pins."""
    return lake.table(PINS).snapshot().sequence if lake.has(PINS) else 0


def pin_of(lake: Tables, name: str) -> Dataset:
    """The pin of that name. Raises `NotFound`."""
    found = pins_of(lake)
    if name not in found:
        known = ", ".join(found) or None
        raise NotFound(f"there is no pin called {name!r}", expected=known)
    return found[name]


def keep_pin(lake: Tables, pin: Dataset) -> Dataset:
    """Put the pin into the ledger, for good; the pin that stands.

    That of the same name stands already where it is of the same rows: to pin once more changes
    nothing. Raises `Refused` where that name has other rows.
    """

    def entry(standing: Mapping[str, Dataset]) -> Mapping[str, Any] | None:
        have = standing.get(pin.name)
        if have is None:
            return _row(replace(pin, id=str(lake.table(PINS).unique())), PINNED, pin.pinned_at)
        if not _is_same(have, pin):
            raise Refused(
                f"the name {pin.name} is taken by another pin",
                place=pin.name,
                found=f"{pin.rows:,} rows at commit {pin.commit}",
                expected=f"{have.rows:,} rows at commit {have.commit}, as pinned before",
                hint="choose another name, or let go of that pin first: `k2 pin remove`",
            )
        return None

    _append(lake, entry)
    return pin_of(lake, pin.name)


def remove_pin(
    lake: Tables, name: str, *, at: datetime, author: str | None = None, note: str | None = None
) -> Dataset:
    """Let go of the pin; what it was. The ledger keeps both events. Raises `NotFound`."""
    gone = pin_of(lake, name)

    def entry(standing: Mapping[str, Dataset]) -> Mapping[str, Any]:
        if standing.get(name) != gone:
            raise NotFound(f"somebody else has let go of the pin {name!r}")
        return {**_row(gone, REMOVED, at), "author": author, "note": note}

    _append(lake, entry)
    return gone


def _append(
    lake: Tables, entry: Callable[[Mapping[str, Dataset]], Mapping[str, Any] | None]
) -> None:
    """Append what `entry` makes of the pins that stand (None: nothing), whoever else appends."""
    ledger = lake.table(PINS)
    for _ in range(ATTEMPTS):
        seen = ledger.snapshot()
        row = entry(_standing(seen))
        if row is None:
            return
        file = ledger.write(to_rows(PINS, [row]), None)
        try:
            ledger.apply(Change(uuid4().hex, (file,), _unless_changed(seen), {}))
        except Conflict:
            delete([file.path])
            continue
        return
    raise Conflict("others keep pinning at the same time", place=PINS)


def _unless_changed(seen: Snapshot) -> Callable[[Snapshot, int], Mapping[str, str]]:
    def properties(head: Snapshot, _: int) -> Mapping[str, str]:
        if head.sequence != seen.sequence:
            raise Conflict("somebody else has pinned in between", place=PINS)
        return {}

    return properties


def _standing(ledger: Snapshot) -> dict[str, Dataset]:
    """The fold of the events: what was pinned and not removed, whatever order files come in."""
    rows = _read(ledger.files.select()).to_pylist()
    removed = {row["id"] for row in rows if row["event"] == REMOVED}
    names = Dataset.__dataclass_fields__
    found = [
        Dataset(**{name: row[name] for name in names})
        for row in rows
        if row["event"] == PINNED and row["id"] not in removed
    ]
    return {pin.name: pin for pin in sorted(found, key=lambda pin: pin.name)}


def _read(files: Iterable[DataFileRef]) -> pa.Table:
    """All entries; columns that a file was written without are null."""
    schema = definition(PINS).arrow
    parts = []
    for file in files:
        rows = pq.ParquetFile(file.path).read()
        columns = [
            rows[field.name].cast(field.type)
            if field.name in rows.column_names
            else pa.nulls(rows.num_rows, field.type)
            for field in schema
        ]
        parts.append(pa.table(columns, names=schema.names))
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _row(pin: Dataset, event: str, at: datetime) -> dict[str, Any]:
    return {**vars(pin), "event": event, "committed_at": at}


def _is_same(have: Dataset, pin: Dataset) -> bool:
    """Whether both are of the same rows, whoever pinned them, and when."""
    told = ("table", "commit", "corrections_commit", "question", "fields", "rows", "hash")
    return all(getattr(have, name) == getattr(pin, name) for name in told)
