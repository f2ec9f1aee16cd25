"""What an overloaded K2 looks like from outside, over time: lag, level, what is shed, freshness.

Comes in: the log and the tables, as anybody may read them. Goes out: samples, and the ages at which
records of tier 1 could be seen.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.torrent import PARTITIONS, TOPIC, first_names
from k2.ingest import Level, levels
from k2.ingest.shed import LATER
from k2.lake import Lake, LakeTable, Snapshot
from k2.log import Log

Ages = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Commit:
    """A commit when it was first seen: seconds since the beginning, Unix time, level; its files,
    and the offsets before it.
    """

    second: float
    unix: float
    level: int
    files: Sequence[str]
    offsets: Mapping[int, int]


@dataclass
class Witness:
    """Looks as often as it is told to; `seconds` count from its making. `level` is that of the
    writer that lives: one that was killed stays on the board for a while.
    """

    log: Log
    table: LakeTable
    seconds: list[float] = field(default_factory=list)
    produced: list[int] = field(default_factory=list)
    lag: list[int] = field(default_factory=list)
    level: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    """Records that are shed and not in yet."""
    is_at_work: bool = False
    """Whether the writer that was looked at last has said its level by then."""

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._last = self.table.snapshot()
        self._commits: list[_Commit] = []

    def look(self, writer: int) -> None:
        """Take how things stand now; `writer` is the id of the writer's process."""
        snapshot, now = self.table.snapshot(), time.monotonic() - self._began
        told = levels(self.log, datetime.now(UTC))
        mine = [w.level for w in told if w.writer.split("-")[-2] == str(writer)]
        self.is_at_work, level = bool(mine), max(mine, default=0)
        end, before = sum(self.log.end_offsets(TOPIC)), self._last
        if snapshot.sequence > before.sequence:
            files = [file.path for file in snapshot.files.since(before.sequence)]
            offsets = _offsets(before)
            self._commits.append(_Commit(now, time.time(), int(level), files, offsets))
            self._last = snapshot
        self.seconds.append(now)
        self.produced.append(end)
        self.lag.append(end - committed(snapshot))
        self.level.append(int(level))
        self.waiting.append(sum(each.records for each in snapshot.shed))

    @property
    def is_calm(self) -> bool:
        """Whether nothing is behind, nothing waits and the level is 0."""
        return not (self.lag[-1] or self.waiting[-1] or self.level[-1])

    def after(self, values: Sequence[int]) -> float | None:
        """Seconds from the last record produced until the values are 0 for good; None: never."""
        last = self.produced.index(self.produced[-1])
        busy = [number for number, value in enumerate(values) if value]
        if not busy:
            return 0.0
        if busy[-1] + 1 == len(values):
            return None
        return max(0.0, self.seconds[busy[-1] + 1] - self.seconds[last])

    def rate(self) -> list[float]:
        """Records produced a second, over a second around each look."""
        at = np.array(self.seconds)
        low, high = np.searchsorted(at, at - 0.5), np.searchsorted(at, at + 0.5) - 1
        made = np.array(self.produced)
        span = np.maximum(at[high] - at[low], 1e-3)
        return [float(rate) for rate in (made[high] - made[low]) / span]

    def freshness(self) -> tuple[dict[Level, Ages], Ages, list[tuple[float, float]]]:
        """Of records of tier 1, their ages in seconds when they were first seen in the tables: by
        the level then; of those that had been shed; and over time, the 99th of 100 of each commit.
        """
        ages: dict[Level, list[Ages]] = {}
        filled, points = [np.zeros(0)], []
        for commit in self._commits:
            live, late = _ages(commit)
            filled.append(late)
            if len(live):
                ages.setdefault(Level(commit.level), []).append(live)
                points.append((commit.second, float(np.percentile(live, 99))))
        joined = {level: np.concatenate(parts) for level, parts in sorted(ages.items())}
        return joined, np.concatenate(filled), points


def committed(snapshot: Snapshot) -> int:
    """Records of the log whose fate the snapshot tells."""
    return sum(_offsets(snapshot).values())


def shed_totals(lake: Lake) -> tuple[int, int]:
    """Records that were ever shed, and those of them that are in, as the ledger says; what was shed
    anew while it came in counts once.
    """
    found = {"shed": 0, "filled": 0, "anew": 0}
    for file in lake.ledger_files("shed"):
        rows = pq.ParquetFile(file.path).read(columns=["event", "id", "records"]).to_pylist()
        for row in rows:
            anew = row["event"] == "shed" and row["id"].endswith(LATER)
            found["anew" if anew else row["event"]] += row["records"]
    return found["shed"], found["filled"] - found["anew"]


def _offsets(snapshot: Snapshot) -> Mapping[int, int]:
    found = snapshot.offsets.get(TOPIC)
    return found.next_offset if found else {}


def _ages(commit: _Commit) -> tuple[Ages, Ages]:
    """Ages of the rows of tier 1; and of those that stood before the offsets: they were shed."""
    first = pa.array([name for p in range(PARTITIONS) for name in first_names(p)])
    columns = ["symbol", "ingestion_timestamp", "log_topic", "log_partition", "log_offset"]
    live, late = [np.zeros(0)], [np.zeros(0)]
    for file in commit.files:
        table = pq.ParquetFile(file).read(columns=columns)
        is_first = pc.is_in(table["symbol"].cast(pa.string()), first)
        is_mine = pc.equal(table["log_topic"].cast(pa.string()), TOPIC)
        table = table.filter(pc.and_(is_first, is_mine))
        ages = commit.unix - table["ingestion_timestamp"].cast(pa.int64()).to_numpy() / 1e6
        reached = np.array([commit.offsets.get(p, 0) for p in range(PARTITIONS)])
        was_shed = table["log_offset"].to_numpy() < reached[table["log_partition"].to_numpy()]
        live.append(ages[~was_shed])
        late.append(ages[was_shed])
    return np.concatenate(live), np.concatenate(late)
