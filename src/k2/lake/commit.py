"""Commits: files and offsets become one snapshot, or nothing happens.

Comes in: files that are durable already. Goes out: the snapshot that holds them. A commit that
was killed, answered by an error or sent twice is found again by its id.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import orjson

from k2.errors import Conflict, Fenced, Refused, Unavailable
from k2.lake.files import WrittenFile, delete, sync, write_new
from k2.lake.index import local
from k2.lake.manifest import (
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
    EXCHANGE,
    LOSSES,
    OFFSETS,
    OUTBOX,
    Loss,
    Offsets,
    OutboxEntry,
    losses_to_json,
    merge,
    moved,
    offsets_to_json,
    outbox_to_json,
)
from k2.lake.snapshot import Head, Snapshot
from k2.model import Exchange

if TYPE_CHECKING:
    from k2.lake.table import LakeTable

ATTEMPTS: Final = 100

MERGE_AT: Final = 16
"""Manifests of one size that become one of the next, as in a log-structured merge tree: so a file
is copied log(n) times, and neither a commit nor a cold reader meets many manifests."""
MERGE_LIMIT: Final = 4096
"""Files in a manifest beyond which it is left alone: copying it would hold up a commit."""


@dataclass(frozen=True)
class Commit:
    """What one commit brings in. `start` is the whole offsets document that the batch was decided
    on, `end` the whole document afterwards.

    `files` belong to the table, `outbox` to ledgers; all are durable. `exchanges` are declared
    with the table, and cannot be declared differently later. `losses` become known, or accepted.
    `id` makes sending it again safe.

    `beside(head)`: where others have moved offsets of other partitions since `start`, whether this
    batch would have been decided the same on that head. Then it goes on beside theirs.
    """

    files: tuple[WrittenFile, ...]
    start: Offsets
    end: Offsets
    outbox: tuple[WrittenFile, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    losses: tuple[Loss, ...] = ()
    beside: Callable[[Snapshot], bool] = lambda head: False
    summary: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True)
class Change:
    """Any change of a table that makes a snapshot.

    `properties` is asked with the head and with the commit's number, raises `Conflict` where the
    head is not what the change was decided on, and answers the properties to be set.
    """

    id: str
    files: tuple[WrittenFile, ...]
    properties: Callable[[Snapshot, int], Mapping[str, str]]
    summary: Mapping[str, str]


def change_of(commit: Commit, absorbed: Callable[[str], int]) -> Change:
    """The change that a commit makes. `absorbed(ledger)`: the commit of this table up to which
    that ledger has taken the outbox, which is pruned accordingly.
    """

    def properties(head: Snapshot, sequence: int) -> Mapping[str, str]:
        offsets = offsets_after(commit, head)
        left = [e for e in head.outbox if e.sequence > absorbed(e.ledger)]
        mine = [OutboxEntry(f.table, f.path, f.rows, sequence) for f in commit.outbox]
        return {
            OFFSETS: offsets_to_json(offsets),
            OUTBOX: outbox_to_json([*left, *mine]),
            **({LOSSES: losses_to_json(_losses(commit, head))} if commit.losses else {}),
            **{EXCHANGE + e.name: e.to_json() for e in commit.exchanges},
        }

    counted = dict.fromkeys(("duplicates", "rejected"), 0)
    for file in commit.outbox:
        counted[file.table] = counted.get(file.table, 0) + file.rows
    summary = {
        **commit.summary,
        **{f"k2.{ledger}": str(rows) for ledger, rows in counted.items()},
    }
    return Change(commit.id, commit.files, properties, summary)


def offsets_after(commit: Commit, head: Snapshot) -> Offsets:
    """The whole offsets document after the commit; raises unless the commit may follow the head.

    `Fenced`: somebody else moved offsets that this commit moves. `Conflict`: offsets of other
    partitions moved, and the batch might be decided otherwise now. `Refused`: an exchange was
    declared differently.
    """
    ours = moved(commit.start, commit.end)
    theirs = moved(commit.start, head.offsets)
    taken = sorted((ours & theirs) | _of_another_log(commit, head) | _backwards(commit))
    if taken:
        raise Fenced(
            "another writer has committed records of this partition",
            place=f"{head.table}: {taken[0]}",
            hint="this writer lost the partition: start again from the table's offsets",
        )
    if theirs and not commit.beside(head):
        raise Conflict(
            "another writer has committed in between",
            place=f"{head.table}: {min(theirs)}",
            hint="read the snapshot again and commit on its offsets",
        )
    for exchange in commit.exchanges:
        have = head.exchanges.get(exchange.name)
        if have is not None and have != exchange:
            raise Refused(
                f"exchange {exchange.name} is declared differently already",
                place=head.table,
                found=exchange.to_json(),
                expected=have.to_json(),
            )
    return merge(commit.start, commit.end, head.offsets)


def _backwards(commit: Commit) -> set[str]:
    """Partitions whose offset would fall: no commit brings records a second time."""
    return {
        f"{topic}[{partition}]"
        for topic, of in commit.end.items()
        if (before := commit.start.get(topic)) is not None and before.log_id == of.log_id
        for partition, offset in of.next_offset.items()
        if offset < before.next_offset.get(partition, 0)
    }


def _of_another_log(commit: Commit, head: Snapshot) -> set[str]:
    """Topics that the head follows in another log than the batch came from."""
    found = set()
    for topic, of in commit.end.items():
        before, now = commit.start.get(topic), head.offsets.get(topic)
        if of != before and now is not None:
            allowed = {of.log_id, before.log_id if before else of.log_id}
            if now.log_id not in allowed:
                found.add(topic)
    return found


def _losses(commit: Commit, head: Snapshot) -> list[Loss]:
    """The head's losses and the commit's; each becomes known once, and is accepted once."""
    known = {replace(loss, accepted=False): loss.accepted for loss in head.losses}
    for loss in commit.losses:
        key = replace(loss, accepted=False)
        if known.get(key) is not None and (known[key] or not loss.accepted):
            raise Conflict("somebody else has noted this loss", place=f"{head.table}: {loss.place}")
        known[key] = loss.accepted
    return [replace(key, accepted=accepted) for key, accepted in known.items()]


def publish(table: "LakeTable", change: Change) -> Snapshot:
    """Make the change the table's next snapshot; returns once that is durable.

    Raises what `change.properties` raises, `Conflict` after too many lost races, `Unavailable`
    when catalog or disk fail: then sending the same change again is safe and doubles nothing.
    """
    for _ in range(ATTEMPTS):
        done = _attempt(table, change)
        if done is not None:
            return done
    raise Conflict(
        f"lost {ATTEMPTS} races against other writers",
        place=table.name,
        hint="send the commit again",
    )


def _attempt(table: "LakeTable", change: Change) -> Snapshot | None:
    """One try; None if somebody else was first."""
    head = table.head()
    if holds(head.metadata, change.id):
        return head.snapshot
    staged = _stage(table, head, change)
    try:
        won = table.catalog.swap(table.name, head.location, staged.location, staged.complete)
    except Unavailable as error:
        return _resolve(table, change, staged, error)
    if not won:
        staged.discard()
        return None
    delete(local(uri) for uri in staged.dropped)
    return table.adopt(staged.location).snapshot


def _resolve(table: "LakeTable", change: Change, staged: "_Staged", error: Unavailable) -> Snapshot:
    """The swap's answer was lost: look whether it happened before anything is deleted."""
    head = table.head()
    if holds(head.metadata, change.id):
        return head.snapshot
    staged.discard()
    raise error


def holds(metadata: Metadata, change_id: str) -> bool:
    """Does the head or one of its ancestors that are kept come from this change?"""
    return any(s["summary"].get(COMMIT_ID) == change_id for s in metadata["snapshots"])


@dataclass(frozen=True)
class _Staged:
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


def _stage(table: "LakeTable", head: Head, change: Change) -> _Staged:
    """Write manifests, their list and the next metadata document, durably."""
    for file in change.files:
        if file.table != table.name or not Path(file.path).exists():
            raise Conflict(
                "a data file of this commit is not there",
                place=file.path,
                hint="it was removed as an orphan, or belongs to another table: write it anew",
            )
    old = head.metadata
    sequence = old["last-sequence-number"] + 1
    properties = change.properties(head.snapshot, sequence)
    unique = table.unique()
    snapshot_id = unique.int >> 65
    desk = _Desk(table, str(unique), snapshot_id, sequence, old)
    try:
        manifests = desk.manifests(change.files, head.manifests)
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
            "summary": _summary(change, parent, properties),
            "schema-id": old["current-schema-id"],
        }
        new = with_snapshot(old, snapshot, properties, table.expired(old))
        new, dropped = succeed(old, new, head.location, now_ms)
        location = desk.write(table.metadata_name(head.location, unique), orjson.dumps(new))
        sync([*map(Path, desk.written), table.metadata_folder])
    except BaseException:
        delete(desk.written)
        raise
    needed = tuple(file.path for file in change.files)
    return _Staged(location, tuple(desk.written), needed, tuple(dropped))


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

    def _manifest(self, spec_id: int, entries: Sequence[Entry]) -> ManifestFile:
        kind = self._table.manifest_format(self._metadata, spec_id)
        raw = kind.to_bytes(entries)
        uri = self.write(f"{self._unique}-m{len(self.written)}.avro", raw)
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
    change: Change, parent: Mapping[str, Any] | None, properties: Mapping[str, str]
) -> dict[str, str]:
    files = change.files
    before = parent["summary"] if parent else {}
    rows, size = sum(f.rows for f in files), sum(f.bytes for f in files)
    partitions = {str(f.data_file["partition"]) for f in files}

    def total(name: str, more: int) -> str:
        return str(int(before.get(name, 0)) + more)

    return {
        "operation": "append",
        "added-data-files": str(len(files)),
        "added-records": str(rows),
        "added-files-size": str(size),
        "changed-partition-count": str(len(partitions)),
        "total-data-files": total("total-data-files", len(files)),
        "total-records": total("total-records", rows),
        "total-files-size": total("total-files-size", size),
        "total-delete-files": "0",
        "total-position-deletes": "0",
        "total-equality-deletes": "0",
        **change.summary,
        **({OFFSETS: properties[OFFSETS]} if OFFSETS in properties else {}),
        COMMIT_ID: change.id,
    }
