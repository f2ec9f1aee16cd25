"""What a feed is: where records come from, normalised to the model, and how reading resumes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

import pyarrow as pa

from k2.model import Exchange


class EndOfFeed(Exception):
    """A finite feed has no more records. Not an error."""


class FeedInterrupted(Exception):
    """The venue hung up; open the feed again at its position, after `retry_after`."""

    def __init__(self, reason: str, retry_after: timedelta) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Records:
    """Records of one kind from one exchange, in the source's order.

    `table` has the columns and types of the kind's latest schema (`k2.model.latest(kind).arrow`).
    Kinds `rejects` and `gaps` carry what the feed could not read and the holes that it noticed.
    """

    kind: str
    exchange: str
    table: pa.Table


class Feed(Protocol):
    """A source of records, read by one thread, again and again: the caller owns the pace.

    A feed knows no tables and keeps nothing: its caller appends what it reads to the log and then
    stores the position, so a feed killed between the two repeats records and never loses one.
    """

    name: str
    """Stable name, under which the position is kept."""

    exchanges: Sequence[Exchange]
    """The exchanges that its records belong to, declared before the first record is appended."""

    def read(self) -> Sequence[Records]:
        """Return the records that are ready; an empty sequence means "none yet".

        Never blocks longer than 100 ms. Raises `EndOfFeed` once a finite source is exhausted,
        `FeedInterrupted` when the venue hung up.
        """

    def position(self) -> str:
        """Where reading goes on: just AFTER the last record that `read` returned.

        Opening the feed at this position repeats nothing and skips nothing.
        """

    def close(self) -> None:
        """Let go of files and connections. `read` may not be called afterwards."""
