"""What the log need not keep: how far its records are committed, and which are old."""

from collections.abc import Sequence
from datetime import datetime

from k2.errors import NotFound
from k2.ingest.options import Retention
from k2.lake import Offsets, Snapshot
from k2.log import Log, retain
from k2.model import Topic


def trim_committed(log: Log, tables: Sequence[Snapshot], keep: Retention, now: datetime) -> None:
    """Delete from the log what all these tables have committed and `keep` does not ask for.

    What was shed and is not brought in yet, stays. Raises as the log does.
    """
    committed = committed_offsets(log, [table.offsets for table in tables])
    for shed in (shed for table in tables for shed in table.shed):
        place = (shed.topic, shed.partition)
        if place in committed:
            committed[place] = min(committed[place], shed.first_offset)
    retain(log, committed, max_age=keep.max_age, max_bytes=keep.max_bytes, now=now)


def committed_offsets(log: Log, tables: Sequence[Offsets]) -> dict[tuple[str, int], int]:
    """By (topic, partition) the offset up to which (exclusive) the tables hold what this log does.

    A topic that is gone, was made anew, or was never in a log is left out.
    """
    found: dict[tuple[str, int], int] = {}
    for topic, of in ((topic, of) for offsets in tables for topic, of in offsets.items()):
        if Topic.parse(topic) is None:
            continue
        try:
            if log.identity(topic) != of.log_id:
                continue
        except NotFound:
            continue
        found |= {(topic, partition): offset for partition, offset in of.next_offset.items()}
    return found
