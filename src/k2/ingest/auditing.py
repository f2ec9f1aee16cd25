"""Audits again and again: each goes on where the last one found all to agree.

Comes in: a log and a lake. Goes out: the sums of all that was audited since the last whole audit,
though each record was read once. What is damaged behind that is found by the next whole one.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from typing import Final

from k2.ingest.audit import Audit, OtherLog, PartitionAudit, audit
from k2.ingest.keep import KINDS
from k2.ingest.verified import Verified
from k2.lake import Lake
from k2.log import Log

WHOLE_EVERY: Final = timedelta(days=1)
"""How often all of the log is read again."""

_TOLD: Final = (
    *("topic", "partition", "start_offset", "end_offset", "first_wrong_offset", "problem"),
)
_COUNTS: Final = tuple(f.name for f in fields(PartitionAudit) if f.name not in _TOLD)
_OF_THE_LOG: Final = ("absent", "in_flight")
"""Counts that go beyond what is committed."""


class Auditing:
    """Audits of one log and lake, one at a time. `clock` is monotonic, in seconds."""

    def __init__(self, log: Log, lake: Lake, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._lake = lake
        self._clock = clock
        self._whole_at: float | None = None
        self._retired: dict[str, int] = {}
        self._verified: dict[str, Verified] = {}
        self._before: dict[tuple[str, int], PartitionAudit] = {}
        self._others: Counter[tuple[str, str]] = Counter()

    def run(self) -> Audit:
        """The sums by now. Raises as `audit` does."""
        now = self._clock()
        # Rows that were counted as committed are retired now: their sums are others.
        if (retired := self._retired_by()) != self._retired:
            self._retired, self._whole_at = retired, None
        if self._whole_at is None or now - self._whole_at > WHOLE_EVERY.total_seconds():
            self._verified, self._before, self._others = {}, {}, Counter()
            self._whole_at = now
        found = audit(self._log, self._lake, verified=self._verified)
        parts = {(part.topic, part.partition): self._joined(part) for part in found.partitions}
        others = self._others + Counter({(o.topic, o.log_id): o.rows for o in found.other_logs})
        for table, mark in found.verified.items():
            if mark == self._verified.get(table, Verified()):
                continue
            self._verified[table] = mark
            for (topic, _, partition), limit in mark.offsets.items():
                if (topic, partition) in parts:
                    self._before[topic, partition] = _up_to(parts[topic, partition], limit)
        if found.ok:
            self._others = others
        told = tuple(OtherLog(*at, rows) for at, rows in sorted(others.items()))
        return replace(found, partitions=tuple(parts.values()), other_logs=told)

    def _retired_by(self) -> dict[str, int]:
        """The last commit of each table that retired rows."""
        tables = [name for name in KINDS if self._lake.has(name)]
        commits = {name: self._lake.table(name).snapshot().retired.commit for name in tables}
        return {name: commit for name, commit in commits.items() if commit}

    def _joined(self, part: PartitionAudit) -> PartitionAudit:
        """The partition's sum with what was verified before."""
        before = self._before.get((part.topic, part.partition))
        if before is None:
            return part
        if before.end_offset != part.start_offset:
            # Made anew, or trimmed past what was verified: these are no longer one range.
            del self._before[part.topic, part.partition]
            self._whole_at = None
            return part
        counts = {name: getattr(before, name) + getattr(part, name) for name in _COUNTS}
        return replace(part, start_offset=before.start_offset, **counts)


def _up_to(part: PartitionAudit, limit: int) -> PartitionAudit:
    """The sum of a sound partition, as far as it is committed."""
    fates = sum(getattr(part, name) for name in _COUNTS if name not in _OF_THE_LOG)
    absent = limit - part.start_offset - fates
    return replace(part, end_offset=limit, absent=absent, in_flight=0)
