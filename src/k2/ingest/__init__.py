"""From the log to the lake: decode, validate, deduplicate, commit exactly once; and the proof."""

from k2.ingest.audit import Audit, PartitionAudit, audit
from k2.ingest.decide import Decided, Decider, table_of
from k2.ingest.follow import Follower
from k2.ingest.loss import accept_loss
from k2.ingest.redrive import Redriven, redrive
from k2.ingest.settle import Fates, fates_of, following, settle, writing
from k2.ingest.tail import Pinned, Tail
from k2.ingest.writer import CommitLimits, Retention, Writer, WriterOptions, group_of

__all__ = [
    "Audit",
    "CommitLimits",
    "Decided",
    "Decider",
    "Fates",
    "Follower",
    "PartitionAudit",
    "Pinned",
    "Redriven",
    "Retention",
    "Tail",
    "Writer",
    "WriterOptions",
    "accept_loss",
    "audit",
    "fates_of",
    "following",
    "group_of",
    "redrive",
    "settle",
    "table_of",
    "writing",
]
