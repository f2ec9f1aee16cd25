"""The reading side of a table: from the catalog's location to a snapshot with its file index.

From one snapshot to the next only the metadata document, the manifest list and new manifests are
read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from k2.errors import Broken
from k2.lake.index import FileColumns, FileIndex, columns_of, local
from k2.lake.index_file import read_index
from k2.lake.manifest import ManifestFile, list_from_bytes, live
from k2.lake.metadata import Metadata, current_snapshot, field_ids, foreign_rewrites
from k2.lake.offsets import (
    LOSSES,
    NOTHING_RETIRED,
    OFFSETS,
    OUTBOX,
    RETIRED,
    SHED,
    Loss,
    Offsets,
    OutboxEntry,
    RetiredUpTo,
    ShedRange,
    absorbed_in,
    exchanges_in,
    losses_from_json,
    offsets_from_json,
    outbox_from_json,
    retired_from_json,
    shed_from_json,
)
from k2.lake.tables import Definition
from k2.model import Exchange

NO_COMMIT: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Snapshot:
    """A table as of one commit. Immutable.

    `snapshot_id` is None and `sequence` 0 before the first commit. `sequence` numbers the table's
    commits, from 1, rising. `offsets`: the log's first offsets that are not committed. `losses`:
    what the log deleted before it was committed, as far as that was noticed. `shed`: the ranges of
    the log in which records were shed that are not brought in yet. `outbox`: ledger
    files that count, and that the ledgers may not have taken yet. `absorbed`: of a ledger, up to
    which commit of each table it has taken them. `field_ids`: Iceberg's id of each column, by which
    files of older schemas are read (their missing columns are null). `foreign`: commits by which
    other engines moved rows from file to file. `retired`: up to where rows were taken out for good.
    """

    table: str
    snapshot_id: int | None
    sequence: int
    committed_at: datetime
    offsets: Offsets
    losses: tuple[Loss, ...]
    shed: tuple[ShedRange, ...]
    outbox: tuple[OutboxEntry, ...]
    exchanges: Mapping[str, Exchange]
    absorbed: Mapping[str, int]
    field_ids: Mapping[str, int]
    foreign: tuple[int, ...]
    files: FileIndex
    retired: RetiredUpTo = NOTHING_RETIRED

    def check_past(self, commit: int) -> None:
        """Raises `Broken` where it is not known which rows were there by that commit."""
        moved = [number for number in self.foreign if number > commit]
        if doubtful := self.files.doubtful(moved):
            raise Broken(
                "another engine has rewritten files: which rows were there before is not known",
                place=f"{self.table}: {len(doubtful)} files of commit {max(moved)} or before",
                hint="`k2 rebuild` makes these rows again from the log, each with its commit",
            )


@dataclass(frozen=True)
class Head:
    """A table's present metadata document, where it stands, and what follows from it."""

    location: str
    metadata: Metadata
    manifests: tuple[ManifestFile, ...]
    columns: Mapping[str, FileColumns]
    """The files of each manifest, by the manifest's path."""
    snapshot: Snapshot


def load(location: str, definition: Definition, before: Head | None) -> Head:
    """Read the document at `location`; of manifests, only those that `before` does not have.

    Raises `FileNotFoundError` when the document, or what it names, was replaced meanwhile.
    """
    metadata: Metadata = orjson.loads(Path(local(location)).read_bytes())
    if metadata["format-version"] != 2:
        raise Broken(
            "this is no table that K2 made",
            place=location,
            found=f"Iceberg format {metadata['format-version']}",
            expected="format 2",
        )
    head = current_snapshot(metadata)
    ids = field_ids(metadata)
    manifests = _manifests(head)
    known = before.columns if before else read_index(Path(local(metadata["location"])))
    columns = {}
    for manifest in manifests:
        path = manifest["manifest_path"]
        if (found := known.get(path)) is None:
            raw = Path(local(path)).read_bytes()
            found = columns_of(live(raw, manifest), ids, definition.time)
        columns[path] = found
    files = FileIndex(FileColumns.concatenated(list(columns.values())))
    snapshot = _snapshot(definition.name, metadata, head, ids, files)
    return Head(location, metadata, manifests, columns, snapshot)


def _manifests(head: Mapping[str, Any] | None) -> tuple[ManifestFile, ...]:
    if head is None:
        return ()
    path = head["manifest-list"]
    return tuple(list_from_bytes(Path(local(path)).read_bytes(), path))


def _snapshot(
    table: str,
    metadata: Metadata,
    head: Mapping[str, Any] | None,
    ids: Mapping[str, int],
    files: FileIndex,
) -> Snapshot:
    properties: Mapping[str, str] = metadata["properties"]
    return Snapshot(
        table=table,
        snapshot_id=head["snapshot-id"] if head else None,
        sequence=head["sequence-number"] if head else 0,
        committed_at=to_datetime(head["timestamp-ms"]) if head else NO_COMMIT,
        offsets=offsets_from_json(properties.get(OFFSETS, "{}")),
        losses=losses_from_json(properties.get(LOSSES, "[]")),
        shed=shed_from_json(properties.get(SHED, "[]")),
        outbox=outbox_from_json(properties.get(OUTBOX, "[]")),
        exchanges=exchanges_in(properties),
        absorbed=absorbed_in(properties),
        field_ids=ids,
        foreign=foreign_rewrites(metadata),
        files=files,
        retired=retired_from_json(properties.get(RETIRED, "{}")),
    )


def to_datetime(milliseconds: int) -> datetime:
    """The UTC time of Iceberg's milliseconds since 1970, exactly."""
    seconds, rest = divmod(milliseconds, 1000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest * 1000)
