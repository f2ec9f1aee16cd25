"""From the log to the lake: decode, validate, deduplicate, commit exactly once; and the proof."""

from k2.ingest.audit import Audit, PartitionAudit, audit
from k2.ingest.decide import Decided, Decider, table_of
from k2.ingest.follow import Follower
from k2.ingest.settle import Fates, fates_of, settle, writing
from k2.ingest.tail import Pinned, Tail
from k2.ingest.writer import CommitLimits, Retention, Writer, WriterOptions

__all__ = [
    "Audit",
    "CommitLimits",
    "Decided",
    "Decider",
    "Fates",
    "Follower",
    "PartitionAudit",
    "Pinned",
    "Retention",
    "Tail",
    "Writer",
    "WriterOptions",
    "audit",
    "fates_of",
    "settle",
    "table_of",
    "writing",
]
