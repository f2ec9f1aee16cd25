"""Through to the tables: wait until what was appended is committed, and say what became of it.

Beside a running writer this only waits; without one it commits itself. Either way the fates are
counted from the tables, for exactly the offsets that were appended.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from k2.ingest.degradation import Level
from k2.ingest.options import WriterOptions
from k2.ingest.sift import table_of
from k2.ingest.writer import Writer
from k2.lake import Lake
from k2.lake.retired import RetiredPlaces
from k2.log import Log, Producer, Registry, Sent
from k2.model import Exchange, Topic

_LOOK: Final = 0.05


@dataclass(frozen=True)
class Fates:
    """What became of the records appended to a run of offsets."""

    committed: int = 0
    duplicate: int = 0
    rejected: int = 0
    retired: int = 0
    shed: int = 0

    def __add__(self, other: "Fates") -> "Fates":
        return Fates(
            self.committed + other.committed,
            self.duplicate + other.duplicate,
            self.rejected + other.rejected,
            self.retired + other.retired,
            self.shed + other.shed,
        )


@dataclass(frozen=True)
class Pace:
    """How far writers of `lake` may be behind: `most` records that are not committed."""

    lake: Lake
    most: int
    stop: Callable[[], bool]


def pace_of(lake: Lake, options: WriterOptions, stop: Callable[[], bool]) -> Pace:
    """A half of the lag at which writers of these options begin to shed."""
    return Pace(lake, options.overload.thresholds.triggers[Level.GRACEFUL].lag // 2, stop)


class PacedProducer(Producer):
    """A producer of what has time: a file, a past. It waits for the writers that run on the lake
    while they are behind, so that it overloads none of them.
    """

    def __init__(self, log: Log, registry: Registry, partitions: int, pace: Pace) -> None:
        super().__init__(log, registry, partitions)
        self._ends = log.end_offsets
        self._pace = pace

    def send(self, exchange: Exchange, kind: str, table: pa.Table) -> list[Sent]:
        """As `Producer.send`, and then the wait."""
        sent = super().send(exchange, kind, table)
        for topic in {each.topic for each in sent}:
            while self._waiting(topic) > self._pace.most and not self._pace.stop():
                with writing(self._pace.lake.folder) as alone:
                    if alone:
                        break  # nobody to wait for
                time.sleep(_LOOK)
        return sent

    def _waiting(self, topic: str) -> int:
        """Records of the topic that are not committed."""
        parsed = Topic.parse(topic)
        assert parsed is not None, "records are only ever sent to topics of records"
        offsets = self._pace.lake.table(table_of(parsed.kind)).snapshot().offsets.get(topic)
        reached = offsets.next_offset if offsets else {}
        return sum(max(0, end - reached.get(p, 0)) for p, end in enumerate(self._ends(topic)))


@contextmanager
def writing(lake_folder: Path) -> Iterator[bool]:
    """Hold the sign that a writer is alone on this lake; yields whether there was none.

    Only a sign, so that a load need not commit beside a writer: exactness is the tables' business.
    """
    with _opened(lake_folder) as handle:
        yield _lock(handle, fcntl.LOCK_EX)


@contextmanager
def following(lake_folder: Path) -> Iterator[Callable[[], bool]]:
    """Hold the sign that a writer runs on this lake, which any number may hold at once.

    Yields a function that says whether it is held, and tries again if not: a load may be alone
    there at first.
    """
    with _opened(lake_folder) as handle:
        held = _lock(handle, fcntl.LOCK_SH)

        def is_held() -> bool:
            nonlocal held
            held = held or _lock(handle, fcntl.LOCK_SH)
            return held

        yield is_held


@contextmanager
def _opened(lake_folder: Path) -> Iterator[int]:
    lake_folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(lake_folder / "writer.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def settle(
    lake: Lake,
    lake_folder: Path,
    sent: Sequence[Sent],
    open_writer: Callable[[], Writer],
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Return once the tables' offsets are past everything in `sent`, or `stop()` says so.

    Raises what the writer raises, if the committing is done here.
    """
    while not stop() and not _is_committed(lake, sent):
        with writing(lake_folder) as free:
            if free:
                open_writer().run(stop, until_caught_up=True, is_whole=True)
                if _is_committed(lake, sent):
                    return
        time.sleep(_LOOK)


def fates_of(lake: Lake, sent: Sequence[Sent]) -> Fates:
    """Count, from the tables, what became of the records at these offsets."""
    total = Fates()
    for name in sorted({s.topic for s in sent}):
        topic = Topic.of_row(name)
        assert topic is not None, "records are only ever sent to topics of records"
        mine = [s for s in sent if s.topic == name]
        snapshot = lake.table(table_of(topic.kind)).snapshot()
        rows = _count([f.path for f in snapshot.files.select()], mine)
        rejected = _count(_ledger(lake, "rejected"), mine)
        duplicates = _count(_ledger(lake, "duplicates"), mine)
        if topic.kind == "rejects":
            total += Fates(duplicate=duplicates, rejected=rows)
        else:
            # Open ranges may hold others' records as well, never fewer than are missing here.
            retired = _retired(lake, mine, topic.kind, snapshot.sequence)
            left = sum(s.count for s in mine) - rows - duplicates - rejected - retired
            total += Fates(rows, duplicates, rejected, retired, left if snapshot.shed else 0)
    return total


def _ledger(lake: Lake, name: str) -> list[str]:
    return [file.path for file in lake.ledger_files(name)]


def _retired(lake: Lake, sent: Sequence[Sent], kind: str, commit: int) -> int:
    """How many of them are of a day that is not kept any more."""
    places = RetiredPlaces(lake, {kind: commit})
    found = 0
    for each in sent:
        end = each.first_offset + each.count
        for place in places.places(each.topic, each.partition):
            found += len(places.offsets(place, each.first_offset, end))
    return found


def _is_committed(lake: Lake, sent: Sequence[Sent]) -> bool:
    for name in {s.topic for s in sent}:
        topic = Topic.parse(name)
        assert topic is not None, "records are only ever sent to topics of records"
        offsets = lake.table(table_of(topic.kind)).snapshot().offsets.get(name)
        reached = offsets.next_offset if offsets else {}
        if any(
            reached.get(s.partition, 0) < s.first_offset + s.count for s in sent if s.topic == name
        ):
            return False
    return True


def _count(paths: Sequence[str], sent: Sequence[Sent]) -> int:
    """Rows of these files whose lineage lies in the ranges of one topic."""
    if not paths:
        return 0
    lowest = min(s.first_offset for s in sent)
    condition = (ds.field("log_topic") == sent[0].topic) & (ds.field("log_offset") >= lowest)
    schema = pa.schema(
        [("log_topic", pa.string()), ("log_partition", pa.int32()), ("log_offset", pa.int64())]
    )
    found = ds.dataset(list(paths), schema=schema, format="parquet").to_table(filter=condition)
    count = 0
    for partition in {s.partition for s in sent}:
        mine = found.filter(pc.equal(found["log_partition"], partition))
        offsets = np.sort(mine["log_offset"].to_numpy())
        starts = [s.first_offset for s in sent if s.partition == partition]
        ends = [s.first_offset + s.count for s in sent if s.partition == partition]
        count += int((np.searchsorted(offsets, ends) - np.searchsorted(offsets, starts)).sum())
    return count
