"""One attempt at a commit: manifests, their list and the next metadata document, durably written.

Comes in: a head and a change. Goes out: a document that waits for its swap, or nothing on disk.
"""

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import numpy as np
import orjson

from k2.errors import Conflict
from k2.lake.files import WrittenFile, delete, sync, write_new
from k2.lake.index import local
from k2.lake.manifest import (
    DELETED,
    EXISTING,
    Entry,
    ManifestFile,
    added,
    list_to_bytes,
    live,
)
from k2.lake.metadata import Metadata, current_snapshot, succeed, with_snapshot
from k2.lake.offsets import (
    COMMIT_ID,
    FOREIGN,
    OFFSETS,
    OUTBOX,
    OutboxEntry,
    outbox_to_json,
)
from k2.lake.snapshot import Head

if TYPE_CHECKING:
    from k2.lake.commit import Change
    from k2.lake.table import LakeTable

MERGE_AT: Final = 16
"""Manifests of one size that become one of the next, as in a log-structured merge tree: so a file
is copied log(n) times, and neither a commit nor a cold reader meets many manifests."""
MERGE_LIMIT: Final = 4096
"""Files in a manifest beyond which it is left alone: copying it would hold up a commit."""


@dataclass(frozen=True)
class Staged:
    """A metadata document with all that it names, written, waiting for the swap."""

    location: str
    written: tuple[str, ...]
    needed: tuple[str, ...]
    dropped: tuple[str, ...]

    def complete(self) -> bool:
        """Are all files still there? A writer that was stopped for hours may find them cleaned."""
        return all(Path(path).exists() for path in (*self.written, *self.needed))

    def discard(self) -> None:
        """Delete what was written for this attempt."""
        delete(self.written)


class Rewritten:
    """What the attempts at one change share: the id of its snapshot, and the manifests that it
    writes anew to take files out of them.

    One lost race after another would write them all again, and a commit beside it is faster.
    """

    def __init__(self, unique: UUID) -> None:
        self.snapshot_id = unique.int >> 65
        self.manifests: dict[str, ManifestFile] = {}
        """By the path of the manifest that each takes the place of."""

    def discard(self, kept: Collection[str] = ()) -> None:
        """Delete the manifests, but for those at the paths `kept`."""
        paths = (local(each["manifest_path"]) for each in self.manifests.values())
        delete(path for path in paths if path not in kept)


def stage(table: "LakeTable", head: Head, change: "Change", rewritten: Rewritten) -> Staged:
    """Write manifests, their list and the next metadata document, durably."""
    gone = [f.path for f in change.files if f.table != table.name or not Path(f.path).exists()]
    if gone := [*gone, *(path for path in change.named if not Path(path).exists())]:
        raise Conflict(
            "a data file of this commit is not there",
            place=gone[0],
            hint="it was removed as an orphan, or belongs to another table: write it anew",
        )
    old = head.metadata
    sequence = old["last-sequence-number"] + 1
    properties = change.properties(head.snapshot, sequence)
    if head.snapshot.foreign:
        properties = {**properties, FOREIGN: json.dumps(head.snapshot.foreign)}
    unique = table.unique()
    snapshot_id = rewritten.snapshot_id
    desk = _Desk(table, str(unique), snapshot_id, sequence, old)
    try:
        if change.entries is not None:
            made = change.entries(sequence)
            desk.written.append(made.path)
            entry = OutboxEntry(made.table, made.path, made.rows, sequence)
            outbox = outbox_to_json([*head.snapshot.outbox, entry])
            properties = {**properties, OUTBOX: outbox}
        manifests = desk.manifests(change.files, _kept(desk, head, change.removed, rewritten))
        parent = current_snapshot(old)
        parent_id = parent["snapshot-id"] if parent else None
        listed = list_to_bytes(manifests, snapshot_id, parent_id, sequence)
        list_uri = desk.write(f"snap-{snapshot_id}-0-{unique}.avro", listed)
        now_ms = table.now_ms(old)
        snapshot = {
            "snapshot-id": snapshot_id,
            **({} if parent_id is None else {"parent-snapshot-id": parent_id}),
            "sequence-number": sequence,
            "timestamp-ms": now_ms,
            "manifest-list": list_uri,
            "summary": _summary(change, head, parent, properties),
            "schema-id": old["current-schema-id"],
        }
        new = with_snapshot(old, snapshot, properties, table.expired(old))
        new, dropped = succeed(old, new, head.location, now_ms)
        location = desk.write(table.metadata_name(head.location, unique), orjson.dumps(new))
        sync([*map(Path, desk.written), table.metadata_folder])
    except BaseException:
        delete(desk.written)
        raise
    ours = {local(m["manifest_path"]) for m in rewritten.manifests.values()}
    ours &= {local(m["manifest_path"]) for m in manifests}
    needed = (*(file.path for file in change.files), *change.named, *sorted(ours))
    return Staged(location, tuple(desk.written), needed, tuple(dropped))


def _kept(
    desk: "_Desk", head: Head, removed: frozenset[str], rewritten: Rewritten
) -> list[ManifestFile]:
    """The head's manifests that still name a file, those with a removed one written anew.

    Raises `Conflict` where one of the removed is no part of the table any more.
    """
    kept, found = [], 0
    for manifest in head.manifests:
        # Nearly every commit only adds: then no file's path is looked at.
        paths = head.columns[manifest["manifest_path"]].path if removed else ()
        gone = removed.intersection(paths)
        found += len(gone)
        if gone:
            kept.append(desk.without(manifest, gone, rewritten))
        elif manifest["added_files_count"] + manifest["existing_files_count"]:
            kept.append(manifest)
    if found < len(removed):
        raise Conflict(
            "files that were to be replaced are no longer in the table",
            place=head.snapshot.table,
            hint="somebody else has replaced them meanwhile: look again",
        )
    return kept


class _Desk:
    """Where one attempt writes its metadata files."""

    def __init__(
        self, table: "LakeTable", unique: str, snapshot_id: int, sequence: int, old: Metadata
    ) -> None:
        self._table = table
        self._folder = table.metadata_folder
        self._unique = unique
        self._snapshot_id = snapshot_id
        self._sequence = sequence
        self._metadata = old
        self._numbers = itertools.count()
        self.written: list[str] = []

    def write(self, name: str, content: bytes) -> str:
        """Write one file; its URI."""
        path = self._folder / name
        self.written.append(str(path))
        write_new(path, content)
        return f"file://{path}"

    def manifests(
        self, files: Sequence[WrittenFile], old: Sequence[ManifestFile]
    ) -> list[ManifestFile]:
        """The manifests of the next snapshot: one for the new files of each spec, and the old
        ones, of which many small ones are merged.
        """
        groups: dict[int, list[Entry]] = defaultdict(list)
        for file in files:
            groups[file.spec_id].append(added(self._snapshot_id, file.data_file))
        new = [self._manifest(spec_id, entries) for spec_id, entries in sorted(groups.items())]
        small = to_merge(old)
        if small:
            entries = [entry for m in small for entry in _existing(m)]
            new.append(self._manifest(small[0]["partition_spec_id"], entries))
        gone = {m["manifest_path"] for m in small}
        return [*new, *(m for m in old if m["manifest_path"] not in gone)]

    def without(
        self, manifest: ManifestFile, gone: Collection[str], rewritten: Rewritten
    ) -> ManifestFile:
        """The manifest anew, with these files (local paths) marked as deleted by this commit."""
        path = manifest["manifest_path"]
        if path not in rewritten.manifests:
            entries = [
                entry | {"status": DELETED, "snapshot_id": self._snapshot_id}
                if local(entry["data_file"]["file_path"]) in gone
                else entry
                for entry in _existing(manifest)
            ]
            made = self._manifest(manifest["partition_spec_id"], entries)
            # No longer this attempt's to delete: the next one may need it.
            self.written.remove(local(made["manifest_path"]))
            sync([Path(local(made["manifest_path"]))])
            rewritten.manifests[path] = made
        return rewritten.manifests[path] | {"sequence_number": self._sequence}

    def _manifest(self, spec_id: int, entries: Sequence[Entry]) -> ManifestFile:
        kind = self._table.manifest_format(self._metadata, spec_id)
        raw = kind.to_bytes(entries)
        uri = self.write(f"{self._unique}-m{next(self._numbers)}.avro", raw)
        return kind.describe(uri, len(raw), self._snapshot_id, self._sequence, entries)


def to_merge(manifests: Iterable[ManifestFile]) -> list[ManifestFile]:
    """The manifests of one spec and size that are due to become one; often none."""
    tiers: dict[tuple[int, int], list[ManifestFile]] = defaultdict(list)
    for m in manifests:
        files = m["added_files_count"] + m["existing_files_count"]
        if files < MERGE_LIMIT:
            tier = int(math.log(max(files, 1), MERGE_AT) + 1e-9)
            tiers[m["partition_spec_id"], tier].append(m)
    return next((found for _, found in sorted(tiers.items()) if len(found) >= MERGE_AT), [])


def _existing(manifest: ManifestFile) -> list[Entry]:
    entries = live(Path(local(manifest["manifest_path"])).read_bytes(), manifest)
    return [entry | {"status": EXISTING} for entry in entries]


def _summary(
    change: "Change", head: Head, parent: Mapping[str, Any] | None, properties: Mapping[str, str]
) -> dict[str, str]:
    files = change.files
    before = parent["summary"] if parent else {}
    rows, size = sum(f.rows for f in files), sum(f.bytes for f in files)
    partitions = {str(f.data_file["partition"]) for f in files}
    gone_rows, gone_size = _size_of(head, change.removed)

    def total(name: str, more: int) -> str:
        return str(int(before.get(name, 0)) + more)

    deleted = {
        "deleted-data-files": str(len(change.removed)),
        "deleted-records": str(gone_rows),
        "removed-files-size": str(gone_size),
    }
    operation = "append"
    if change.removed:
        # Iceberg's "replace" promises that the rows are the same ones.
        operation = "replace" if gone_rows == rows else "overwrite"
    return {
        "operation": operation,
        "added-data-files": str(len(files)),
        "added-records": str(rows),
        "added-files-size": str(size),
        **(deleted if change.removed else {}),
        "changed-partition-count": str(len(partitions)),
        "total-data-files": total("total-data-files", len(files) - len(change.removed)),
        "total-records": total("total-records", rows - gone_rows),
        "total-files-size": total("total-files-size", size - gone_size),
        "total-delete-files": "0",
        "total-position-deletes": "0",
        "total-equality-deletes": "0",
        **change.summary,
        **({OFFSETS: properties[OFFSETS]} if OFFSETS in properties else {}),
        COMMIT_ID: change.id,
    }


def _size_of(head: Head, paths: frozenset[str]) -> tuple[int, int]:
    """Rows and bytes of these files of the head."""
    if not paths:
        return 0, 0
    of = head.snapshot.files.columns
    chosen = np.isin(of.path, list(paths))
    return int(of.rows[chosen].sum()), int(of.bytes[chosen].sum())
