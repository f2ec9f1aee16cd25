"""How long the log keeps messages: by age, then by size, and never what is not yet committed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from k2.log.port import Log

_STEPS: Final = 64
"""A partition too large is trimmed by this part of its messages at a time, then measured again."""


@dataclass(frozen=True)
class Trimmed:
    """What was deleted from a partition: the offsets `[start_offset, end_offset)`."""

    topic: str
    partition: int
    start_offset: int
    end_offset: int


def retain(
    log: Log,
    safe: Mapping[tuple[str, int], int],
    *,
    max_age: timedelta,
    max_bytes: int | None,
    now: datetime,
) -> list[Trimmed]:
    """Trim each partition of `safe` to messages younger than `max_age` and to about `max_bytes`.

    `safe` maps (topic, partition) to the first offset that must stay: what lies before is in the
    tables. Nothing at or past it is ever deleted, and a partition that `safe` does not name is left
    alone. Messages go by whole batches, so a little more may stay. `max_bytes` is for each
    partition, None for no limit.
    """
    found = []
    for (topic, partition), limit in sorted(safe.items()):
        start = log.start_offset(topic, partition)
        # A table may know of offsets that this log does not have (it was made anew): not ours.
        limit = min(limit, log.end_offset(topic, partition))
        aged = min(limit, log.offset_at(topic, partition, now - max_age))
        kept_from = log.trim(topic, partition, aged) if aged > start else start
        if max_bytes is not None:
            kept_from = _shrink(log, topic, partition, kept_from, limit, max_bytes)
        if kept_from > start:
            found.append(Trimmed(topic, partition, start, kept_from))
    return found


def _shrink(log: Log, topic: str, partition: int, start: int, limit: int, max_bytes: int) -> int:
    target = start
    while target < limit and log.size(topic, partition) > max_bytes:
        # Only whole batches go: a step that ends inside one moves nothing, so the next goes on.
        target = min(limit, target + max(1, (limit - start) // _STEPS))
        start = max(start, log.trim(topic, partition, target))
        target = max(target, start)
    return start
