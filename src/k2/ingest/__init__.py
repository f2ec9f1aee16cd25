"""From the log to the lake: decode, validate, deduplicate, commit exactly once; and the proof."""

from k2.ingest.audit import Audit, PartitionAudit, audit
from k2.ingest.auditing import Auditing
from k2.ingest.board import WriterLevel, levels
from k2.ingest.decide import Decided, Decider
from k2.ingest.degradation import Change, Level, Thresholds, Trigger
from k2.ingest.drive import Drive
from k2.ingest.follow import Follower
from k2.ingest.gaps import STATE as GAP_STATE
from k2.ingest.gaps import STATES as GAP_STATES
from k2.ingest.gaps import with_state
from k2.ingest.loss import accept_loss, to_partition
from k2.ingest.options import CommitLimits, Retention, WriterOptions
from k2.ingest.overload import OverloadOptions
from k2.ingest.rebuild import Rebuilt, Wanted, rebuild
from k2.ingest.redrive import Redriven, redrive
from k2.ingest.settle import (
    Fates,
    Pace,
    PacedProducer,
    fates_of,
    following,
    pace_of,
    settle,
    writing,
)
from k2.ingest.sift import table_of
from k2.ingest.tail import Pinned, Tail
from k2.ingest.verified import Verified, keep_verified, read_verified
from k2.ingest.watch import CommitFigures, Lag, Watch
from k2.ingest.writer import Writer, group_of

__all__ = [
    "GAP_STATE",
    "GAP_STATES",
    "Audit",
    "Auditing",
    "Change",
    "CommitFigures",
    "CommitLimits",
    "Decided",
    "Decider",
    "Drive",
    "Fates",
    "Follower",
    "Lag",
    "Level",
    "OverloadOptions",
    "Pace",
    "PacedProducer",
    "PartitionAudit",
    "Pinned",
    "Rebuilt",
    "Redriven",
    "Retention",
    "Tail",
    "Thresholds",
    "Trigger",
    "Verified",
    "Wanted",
    "Watch",
    "Writer",
    "WriterLevel",
    "WriterOptions",
    "accept_loss",
    "audit",
    "fates_of",
    "following",
    "group_of",
    "keep_verified",
    "levels",
    "pace_of",
    "read_verified",
    "rebuild",
    "redrive",
    "settle",
    "table_of",
    "to_partition",
    "with_state",
    "writing",
]
