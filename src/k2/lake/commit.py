"""Commits: files and offsets become one snapshot, or nothing happens.

Comes in: files that are durable already. Goes out: the snapshot that holds them. A commit that
was killed, answered by an error or sent twice is found again by its id.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from k2.errors import Conflict, Fenced, Refused, Unavailable
from k2.lake.files import WrittenFile, delete
from k2.lake.index import local
from k2.lake.metadata import Metadata
from k2.lake.offsets import (
    COMMIT_ID,
    EXCHANGE,
    FILLED,
    LOSSES,
    OFFSETS,
    OUTBOX,
    SHED,
    Loss,
    Offsets,
    OutboxEntry,
    RetiredUpTo,
    ShedRange,
    losses_to_json,
    merge,
    moved,
    offsets_to_json,
    outbox_to_json,
    shed_after,
    shed_to_json,
)
from k2.lake.snapshot import Snapshot
from k2.lake.stage import Rewritten, Staged, stage
from k2.model import Exchange

if TYPE_CHECKING:
    from k2.lake.table import LakeTable

ATTEMPTS: Final = 100


@dataclass(frozen=True)
class Commit:
    """What one commit brings in. `start` is the whole offsets document that the batch was decided
    on, `end` the whole document afterwards.

    `files` belong to the table, `outbox` to ledgers; all are durable. `exchanges` are declared
    with the table, and cannot be declared differently later. `losses` become known, or accepted.
    `shed` are ranges that were shed, `filled` fronts of open ones whose records `files` bring in
    (or the outbox, where they are rejected or duplicates). `id` makes sending it again safe.

    `start_shed` are all ranges that were open when the batch was decided, `start_retired` what had
    been retired by then (None: it matters not).

    `beside(head)`: where others have moved offsets of other partitions since `start`, or brought in
    what was shed, whether this batch would have been decided the same on that head. Then it goes on
    beside theirs.
    """

    files: tuple[WrittenFile, ...]
    start: Offsets
    end: Offsets
    outbox: tuple[WrittenFile, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    losses: tuple[Loss, ...] = ()
    shed: tuple[ShedRange, ...] = ()
    filled: tuple[ShedRange, ...] = ()
    start_shed: tuple[ShedRange, ...] | None = None
    start_retired: RetiredUpTo | None = None
    beside: Callable[[Snapshot], bool] = lambda head: False
    summary: Mapping[str, str] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid4().hex)


@dataclass(frozen=True)
class Change:
    """Any change of a table that makes a snapshot.

    `properties` is asked with the head and with the commit's number, raises `Conflict` where the
    head is not what the change was decided on, and answers the properties to be set. `removed` are
    local paths of the table's files that `files` take the place of. `named` are local paths of
    files that the properties name: they must be there as well.

    `entries` writes a ledger's file that has the commit's own number in it, for the outbox: anew
    for each attempt. `guard` is asked while nobody else can commit to any table, and raises
    `Conflict` where another one is not as the change was decided on.
    """

    id: str
    files: tuple[WrittenFile, ...]
    properties: Callable[[Snapshot, int], Mapping[str, str]]
    summary: Mapping[str, str]
    removed: frozenset[str] = frozenset()
    named: tuple[str, ...] = ()
    entries: Callable[[int], WrittenFile] | None = None
    guard: Callable[[], None] = lambda: None


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
            **_lost(commit, head, offsets),
            **_shed(commit, head),
            **{EXCHANGE + e.name: e.to_json() for e in commit.exchanges},
        }

    counted = dict.fromkeys(("duplicates", "rejected"), 0)
    for file in commit.outbox:
        counted[file.table] = counted.get(file.table, 0) + file.rows
    summary = {
        **commit.summary,
        **{f"k2.{ledger}": str(rows) for ledger, rows in counted.items()},
        **({FILLED: shed_to_json(commit.filled)} if commit.filled else {}),
    }
    named = tuple(file.path for file in commit.outbox)
    return Change(commit.id, commit.files, properties, summary, named=named)


def replacing(removed: Iterable[str], files: Iterable[WrittenFile]) -> Change:
    """The change that puts `files` in the place of those at the paths `removed`.

    Offsets and all else stay as the head has them, so that it stands beside any commit. Every row
    of `files` has its `commit_sequence`: what was brought in by which commit stays as it was.
    """

    def properties(head: Snapshot, sequence: int) -> Mapping[str, str]:
        return {OFFSETS: offsets_to_json(head.offsets)}

    return Change(uuid4().hex, tuple(files), properties, {"k2.rows": "0"}, frozenset(removed))


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
    # Who brings in what was shed moves no offset.
    filled = commit.start_shed is not None and commit.start_shed != head.shed
    if (theirs or filled) and not commit.beside(head):
        raise Conflict(
            "another writer has committed in between",
            place=f"{head.table}: {min(theirs, default='records that were shed before')}",
            hint="read the snapshot again and commit on its offsets",
        )
    if commit.start_retired is not None and commit.start_retired != head.retired:
        raise Conflict(
            "days were retired in between",
            place=head.table,
            hint="read the snapshot again: what comes to these days is not kept",
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


def _shed(commit: Commit, head: Snapshot) -> Mapping[str, str]:
    if not commit.shed and not commit.filled:
        return {}
    return {SHED: shed_to_json(shed_after(head.shed, commit.shed, commit.filled))}


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


def _lost(commit: Commit, head: Snapshot, offsets: Offsets) -> Mapping[str, str]:
    """The losses after the commit, if they are others. A writer that had read records before the
    log deleted them may commit them after another has noted them as lost: these are not.
    """
    losses = []
    for loss in _losses(commit, head) if commit.losses else head.losses:
        of = offsets.get(loss.topic)
        at = of.next_offset.get(loss.partition, 0) if of and of.log_id == loss.log_id else 0
        if loss.accepted or at <= loss.first_offset:
            losses.append(loss)
        elif at < loss.end_offset:
            losses.append(replace(loss, first_offset=at))
    return {} if tuple(losses) == head.losses else {LOSSES: losses_to_json(losses)}


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
    rewritten = Rewritten(table.unique())
    for _ in range(ATTEMPTS):
        done = _attempt(table, change, rewritten)
        if done is not None:
            return done
    rewritten.discard()
    raise Conflict(
        f"lost {ATTEMPTS} races against other writers",
        place=table.name,
        hint="send the commit again",
    )


def _attempt(table: "LakeTable", change: Change, rewritten: Rewritten) -> Snapshot | None:
    """One try; None if somebody else was first."""
    head = table.head()
    if holds(head.metadata, change.id):
        return head.snapshot
    try:
        staged = stage(table, head, change, rewritten)
    except BaseException:
        rewritten.discard()
        raise
    try:
        won = table.catalog.swap(
            table.name, head.location, staged.location, lambda: _ready(change, staged)
        )
    except Unavailable as error:
        return _resolve(table, change, staged, rewritten, error)
    except Conflict:
        staged.discard()
        rewritten.discard()
        raise
    if not won:
        staged.discard()
        return None
    delete(local(uri) for uri in staged.dropped)
    rewritten.discard(kept=staged.needed)
    return table.adopt(staged.location).snapshot


def _ready(change: Change, staged: Staged) -> bool:
    change.guard()
    return staged.complete()


def _resolve(
    table: "LakeTable", change: Change, staged: Staged, rewritten: Rewritten, error: Unavailable
) -> Snapshot:
    """The swap's answer was lost: look whether it happened before anything is deleted."""
    head = table.head()
    if holds(head.metadata, change.id):
        return head.snapshot
    staged.discard()
    rewritten.discard()
    raise error


def holds(metadata: Metadata, change_id: str) -> bool:
    """Does the head or one of its ancestors that are kept come from this change?"""
    return any(s["summary"].get(COMMIT_ID) == change_id for s in metadata["snapshots"])
