"""What an engine is: it runs named statements over sources, each a set of files and a tail.

The rooms above compose a `Statement` once; an adapter (one file beside this one) says how a source
becomes a relation in its own SQL, and runs it.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True)
class LogRange:
    """Offsets `[first, end)` of one partition of a topic."""

    topic: str
    log_id: str
    partition: int
    first: int
    end: int


@dataclass(frozen=True)
class Pin:
    """Which rows belong to a past state: those of commits up to `sequence` (inclusive), and those
    that stood in the log within `ranges`, whether or not they have been committed since. Of all
    these, only rows of commits past `after`.
    """

    sequence: int
    ranges: tuple[LogRange, ...] = ()
    after: int = 0


@dataclass(frozen=True)
class PartialFile:
    """A file of which only the rows of a pinned state count; `sequence` is the file's commit."""

    path: str
    sequence: int


@dataclass(frozen=True)
class Standing:
    """What corrections have made of a source's trades: `table` has a row for each that they are
    about (see `k2.query.corrections`), `files` are those of its files that may hold one.

    With `history` all rows stay as they came, and columns beside say what became of them.
    """

    table: pa.Table
    files: frozenset[str]
    history: bool = False


@dataclass(frozen=True)
class Source:
    """The rows of one table at one state: `files` whole, `partial` filtered by `pin`, and `tail`.

    `columns` are those that the relation has. `mixed` files may lack some (an earlier version wrote
    them): these get the default from `defaults`, or null. `tail` may lack columns too. `named` adds
    a column `filename`, the file that a row is from. `rows` tells how many there are, at most.
    `standing` has corrections applied; `known_at` leaves out what was not known by then; `beyond`
    leaves out the rows of that earlier state (then all files are `partial`).
    """

    columns: pa.Schema
    files: tuple[str, ...] = ()
    partial: tuple[PartialFile, ...] = ()
    pin: Pin | None = None
    tail: pa.Table | None = None
    mixed: bool = True
    defaults: Mapping[str, object] = field(default_factory=dict)
    named: bool = False
    rows: int = 0
    standing: Standing | None = None
    known_at: datetime | None = None
    beyond: Pin | None = None


@dataclass(frozen=True)
class Statement:
    """SQL with `{name}` where the relation of a source or of a small table stands, and values to
    bind: `$name` in the text.
    """

    text: str
    values: Mapping[str, object] = field(default_factory=dict)


class Engine(Protocol):
    """Runs statements. Every method may be called from any thread, many at once.

    Raises `Heavy` for what reads more than it may here (`weight.at_most`), `Refused` when the
    question's limits are passed (`stopping.limits`) or it needs more memory than there is,
    `Unavailable` when a file cannot be read, `BadInput` for a
    statement of a user's that cannot run.
    """

    def run(self, statement: Statement, sources: Mapping[str, Source | pa.Table]) -> pa.Table:
        """The statement's rows, as plain columns (no dictionaries, times in UTC)."""

    def reads(self, text: str, relations: Collection[str]) -> frozenset[str]:
        """Which of the relations a user's SQL reads.

        Raises `BadInput` if it cannot be read or names others, `Refused` unless it is one SELECT
        that only computes.
        """

    def ask(
        self,
        text: str,
        sources: Mapping[str, Source | pa.Table],
        *,
        limit: int | None = None,
    ) -> tuple[pa.Table, bool]:
        """At most `limit` rows of a user's SELECT over relations named like the sources, and
        whether there were more. `reads` must have allowed it; it can reach nothing else.
        """

    def close(self) -> None:
        """Let go of memory and files."""
