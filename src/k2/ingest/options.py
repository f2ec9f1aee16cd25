"""How a writer works: when it commits, what the log keeps, who watches it."""

from dataclasses import dataclass, field
from datetime import timedelta

from k2.ingest.holes import ALL_HOLES
from k2.ingest.overload import OverloadOptions
from k2.ingest.watch import Unwatched, Watch
from k2.model import CLOCK_SKEW


@dataclass(frozen=True)
class CommitLimits:
    """When a batch is committed: at the first of these."""

    rows: int = 500_000
    size_bytes: int = 256 << 20
    interval: timedelta = timedelta(seconds=1)


@dataclass(frozen=True)
class Retention:
    """What the log keeps of what is committed already."""

    max_age: timedelta = timedelta(days=90)
    max_bytes: int | None = None


@dataclass(frozen=True)
class WriterOptions:
    """How a writer works. `skew`: how far a timestamp may lie ahead of its ingestion_timestamp.

    `gap_grace`: how long numbers may be missing before the gap ledger has them; `most_holes`: so
    many of a table's are in memory, and others in the ledger alone, before their time if need be.
    `overload`: when it steps back. `file_age_max`: files prepared longer ago than this are written
    anew before their commit, so that whoever removes orphans cannot have taken them for some.
    `watch` is told of its work.
    """

    limits: CommitLimits = field(default_factory=CommitLimits)
    retention: Retention = field(default_factory=Retention)
    overload: OverloadOptions = field(default_factory=OverloadOptions)
    skew: timedelta = CLOCK_SKEW
    gap_grace: timedelta = timedelta(seconds=10)
    most_holes: int = ALL_HOLES
    file_age_max: timedelta = timedelta(hours=12)
    watch: Watch = field(default_factory=Unwatched)
