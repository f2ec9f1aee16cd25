"""Where the log lost what the table needs: noticed, told to the gap ledger, gone past when told to.

Comes in: partitions that log and table disagree about. Goes out: commits without rows, which note a
loss with its offsets, take an operator's word that it is accepted, or begin in a topic made anew.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from k2.errors import BadInput, Conflict, NotFound
from k2.ingest.sift import table_of
from k2.lake import Commit, Lake, LakeTable, Loss, Offsets, Snapshot, TopicOffsets
from k2.lake.ledgers import to_rows
from k2.log import Log
from k2.model import Topic

CAUSE: Final = "log loss"


def note_losses(
    log: Log, lake: Lake, table: LakeTable, places: Collection[tuple[str, int]], now: datetime
) -> None:
    """Commit what is to be said of these (topic, partition), unless it was said before.

    Deleted offsets become a loss, and an entry of the gap ledger; the partition waits for
    `accept_loss`. A topic that was made anew is followed from its start from now on.
    """
    snapshot = table.snapshot()
    for topic in sorted({topic for topic, _ in places} & snapshot.offsets.keys()):
        try:
            if snapshot.offsets[topic].log_id != log.identity(topic):
                _begin_anew(log, lake, table, snapshot, topic, now)
            else:
                for partition in sorted(p for name, p in places if name == topic):
                    loss = _new_loss(log, snapshot, topic, partition)
                    if loss is not None:
                        _commit(lake, table, snapshot.offsets, [loss], now)
        except Conflict:
            continue  # another writer said it


def to_partition(place: str) -> tuple[Topic, int]:
    """The topic of records and the partition that `TOPIC[PARTITION]` names; or `BadInput`."""
    parts = re.fullmatch(r"(.+)\[(-?[0-9]+)\]", place)
    topic = Topic.of_row(parts[1]) if parts else None
    if parts is None or topic is None:
        raise BadInput("this is no partition", found=place, expected="TOPIC[PARTITION]")
    return topic, int(parts[2])


def accept_loss(log: Log, lake: Lake, place: str, now: datetime) -> Loss:
    """Have the table go on behind what the log lost of `place`, written `TOPIC[PARTITION]`.

    The offsets that are accepted as lost. Raises `BadInput` for no such place, `NotFound` where
    nothing is lost, `Conflict` if another writer moved on at the same moment.
    """
    topic, partition = to_partition(place)
    name = str(topic)
    table = lake.table(table_of(topic.kind))
    snapshot = table.snapshot()
    start = log.start_offset(name, partition)
    of = snapshot.offsets.get(name)
    offset = of.next_offset.get(partition) if of else None
    if of is None or offset is None or of.log_id != log.identity(name) or offset >= start:
        raise NotFound("the log has lost nothing here", place=place)
    new = _new_loss(log, snapshot, name, partition)
    lost = [*_open(snapshot, name, partition), *([new] if new else [])]
    end = dict(snapshot.offsets)
    end[name] = TopicOffsets(of.log_id, {**of.next_offset, partition: start})
    accepted = [replace(loss, accepted=True) for loss in lost]
    _commit(lake, table, snapshot.offsets, accepted, now, end=end, told=[new] if new else [])
    return Loss(name, of.log_id, partition, offset, start, accepted=True)


def _open(snapshot: Snapshot, topic: str, partition: int) -> list[Loss]:
    """Losses of the partition that are known and not accepted."""
    log_id = snapshot.offsets[topic].log_id
    return [
        loss
        for loss in snapshot.losses
        if (loss.topic, loss.log_id, loss.partition, loss.accepted)
        == (topic, log_id, partition, False)
    ]


def _new_loss(log: Log, snapshot: Snapshot, topic: str, partition: int) -> Loss | None:
    """What the log lost beyond what is known."""
    of = snapshot.offsets[topic]
    start = log.start_offset(topic, partition)
    known = [loss.end_offset for loss in _open(snapshot, topic, partition)]
    first = max([of.next_offset.get(partition, start), *known])
    return Loss(topic, of.log_id, partition, first, start) if first < start else None


def _begin_anew(
    log: Log, lake: Lake, table: LakeTable, snapshot: Snapshot, topic: str, now: datetime
) -> None:
    """Whether the old log held more than was committed, nobody can say any more: its last offset
    is unknown.
    """
    old = snapshot.offsets[topic]
    starts = {p: log.start_offset(topic, p) for p in range(log.topics()[topic])}
    end = {**snapshot.offsets, topic: TopicOffsets(log.identity(topic), starts)}
    rows = [
        _gap_row(Loss(topic, old.log_id, p, offset, offset), now) | {"last_missing": None}
        for p, offset in sorted(old.next_offset.items())
    ]
    _commit_rows(lake, table, rows, Commit((), snapshot.offsets, end))


def _commit(
    lake: Lake,
    table: LakeTable,
    start: Offsets,
    losses: list[Loss],
    now: datetime,
    *,
    end: Offsets | None = None,
    told: list[Loss] | None = None,
) -> None:
    rows = [_gap_row(loss, now) for loss in (losses if told is None else told)]
    change = Commit((), start, start if end is None else end, losses=tuple(losses))
    _commit_rows(lake, table, rows, change)


def _commit_rows(
    lake: Lake, table: LakeTable, rows: Sequence[Mapping[str, Any]], commit: Commit
) -> None:
    """The commit together with these entries of the gap ledger; no rows are decided in it."""
    commit = replace(commit, beside=lambda head: True, summary={"k2.rows": "0"})
    if rows:
        file = lake.table("gaps").write(to_rows("gaps", rows), None)
        if table.name == file.table:
            commit = replace(commit, files=(file,))
        else:
            commit = replace(commit, outbox=(file,))
    table.commit(commit)


def _gap_row(loss: Loss, now: datetime) -> dict[str, Any]:
    topic = Topic.parse(loss.topic)
    assert topic is not None, "only topics of records have offsets in a table"
    return {
        "exchange": topic.exchange,
        "symbol": "",
        "kind": topic.kind,
        "first_missing": loss.first_offset,
        "last_missing": loss.end_offset - 1,
        "cause": CAUSE,
        "ingestion_timestamp": now,
        "log_topic": loss.topic,
        "log_id": loss.log_id,
        "log_partition": loss.partition,
        "log_offset": loss.first_offset,
    }
