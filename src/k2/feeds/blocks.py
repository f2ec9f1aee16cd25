"""A binary file as a feed, a block of whole records at a time: what all such formats share.

A format says what its blocks are and how one becomes tables; which records are new, numbered,
valid or refused is decided here. Places in the file are counted in records, from 1.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from k2.errors import BadInput
from k2.feeds.mapped.content import Bytes, place_of, print_of
from k2.feeds.mapped.rejects import Origin, Verdicts, to_rejects
from k2.feeds.occurrence import Occurrences
from k2.feeds.port import EndOfFeed, Records
from k2.model import Exchange, latest, validate

Clock = Callable[[], datetime]
Progress = Callable[[int, int], None]
Ints = npt.NDArray[np.int64]

SKIP_SECONDS: Final = 0.05
"""So long one `read` may look for the position that the feed was opened at."""


class Block(Protocol):
    """Whole records of a file; the first has the number `first` in it."""

    @property
    def first(self) -> int:
        """Number of the first record in the file."""

    def __len__(self) -> int:
        """How many records."""

    def raw(self, rows: Ints) -> list[bytes]:
        """The records at these places of the block, as they came."""


B = TypeVar("B", bound=Block)


@dataclass(frozen=True)
class Opened:
    """What a file is opened with: see `k2.feeds.csv.open_file`. `source` names the format."""

    source: str
    path: Path
    skew: timedelta
    clock: Clock
    progress: Progress | None
    position: str | None


class BlockFeed(ABC, Generic[B]):
    """One file as a feed. Its name and position hold as long as the file is the same."""

    exchanges: Sequence[Exchange] = ()
    _kinds: Sequence[str] = ()

    def __init__(self, name: str, opened: Opened) -> None:
        self._opened = opened
        self._bytes = Bytes(opened.path)
        self._occurrences: dict[str, Occurrences] = {}
        try:
            self.name = name
            self._print = print_of(opened.path)
            self._number = 0
            self._skip = place_of(opened.position, "record", self._print)
            self._blocks: Iterator[B] = iter(())
            self._begin()
            for kind in self._kinds:
                if "occurrence" in latest(kind).arrow.names and self._is_counted(kind):
                    self._occurrences[kind] = Occurrences(partial(self._reread, kind))
        except BaseException:
            self._bytes.close()
            raise

    @abstractmethod
    def _begin(self) -> None:
        """Set `exchanges` (one), `_kinds` and `_blocks`, unless the file is empty."""

    @abstractmethod
    def _convert(self, block: B, kind: str, now: datetime) -> tuple[Ints, pa.Table, Verdicts]:
        """A kind's places in the block, their table, and which of them are refused."""

    @abstractmethod
    def _again(self) -> "BlockFeed[B]":
        """The same file from its start."""

    def _learn(self, block: B) -> None:
        """Take what the block says that is no record of its own."""
        return

    def _is_counted(self, kind: str) -> bool:
        """Whether records of the kind are told apart by how often their content came."""
        return True

    def read(self) -> Sequence[Records]:
        """The records of the next block, and the rejects among them."""
        began = time.monotonic()
        while True:
            found = self._read_block()
            # Behind the position that the feed was opened at, blocks hold nothing new.
            if found or self._number >= self._skip or time.monotonic() - began > SKIP_SECONDS:
                return found

    def _read_block(self) -> Sequence[Records]:
        block, now = self._next_block(), self._opened.clock()
        self._number = block.first + len(block) - 1
        found = []
        for kind in self._kinds:
            rows, table, verdicts = self._convert(block, kind, now)
            good = table.filter(pa.array(verdicts.good))
            if kind in self._occurrences:
                ordinals = pa.array(self._occurrences[kind].number(good), pa.int32())
                at = good.schema.get_field_index("occurrence")
                good = good.set_column(at, good.schema.field(at), ordinals)
            # Only now: which records are too far ahead depends on when they were read, and the
            # numbers of equal records must not.
            good = self._validated(kind, good, verdicts)
            fresh = block.first + rows > self._skip
            found += [
                Records(kind, self._exchange.name, good.filter(pa.array(fresh[verdicts.good]))),
                self._rejects(kind, block, rows[fresh], (verdicts, fresh), now),
            ]
        if self._opened.progress is not None:
            self._opened.progress(self._bytes.done(), self._bytes.total)
        return [records for records in found if records.table.num_rows]

    @property
    def _exchange(self) -> Exchange:
        (exchange,) = self.exchanges
        return exchange

    def _next_block(self) -> B:
        block = next(self._blocks, None)
        if block is None:
            raise EndOfFeed
        self._learn(block)
        return block

    def _validated(self, kind: str, good: pa.Table, verdicts: Verdicts) -> pa.Table:
        """The records that can be; the others are added to the verdicts."""
        failures = validate(kind, good, self._exchange, self._opened.skew)
        if failures is None:
            return good
        places = np.flatnonzero(verdicts.good)[failures.rows]
        lists = (a.to_pylist() for a in (failures.columns, failures.values, failures.wrongs))
        for place, name, value, wrong in zip(places.tolist(), *lists, strict=True):
            verdicts.reasons.append((name, f'{name} "{value}" {wrong}', None))
            verdicts.codes[place] = len(verdicts.reasons)
        keep = np.ones(good.num_rows, bool)
        keep[failures.rows] = False
        return good.filter(pa.array(keep))

    def _rejects(
        self, kind: str, block: B, rows: Ints, told: tuple[Verdicts, Any], now: datetime
    ) -> Records:
        """What was refused among the rows, whole. `line` is the record's number in the file."""
        verdicts, fresh = told
        codes = verdicts.codes[fresh]
        bad = rows[codes > 0]
        origin = Origin(self._exchange.name, kind, self._opened.source, self._opened.path.name)
        why = [verdicts.reasons[code - 1] for code in codes[codes > 0].tolist()]
        table = to_rejects(origin, block.first + bad, why, block.raw(bad), now)
        return Records("rejects", self._exchange.name, table)

    def _reread(self, kind: str) -> Iterator[pa.Table]:
        """The good records of a kind of the whole file once more, as they were numbered."""
        feed = self._again()
        try:
            while True:
                _, table, verdicts = feed._convert(feed._next_block(), kind, self._opened.clock())
                yield table.filter(pa.array(verdicts.good))
        except (EndOfFeed, BadInput):
            # A file that is cut is told of by the first reading, which comes there later.
            return
        finally:
            feed.close()

    def position(self) -> str:
        """`record <last record read> of <the file's size and time of change>`."""
        return f"record {max(self._number, self._skip)} of {self._print}"

    def close(self) -> None:
        """Let go of the file, and of temporary files."""
        self._bytes.close()
        for occurrences in self._occurrences.values():
            occurrences.close()
