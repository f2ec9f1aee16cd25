"""The proof: every record of the log and its fate, read from log and tables as a stranger would.

Comes in: a log and a lake, live or not. Goes out: for each partition
`end - start = committed + duplicate + rejected + shed + absent + lost + in flight`, and the first
offset that breaks it. Nothing here asks the writer or trusts its memory.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from k2.errors import K2Error
from k2.ingest.decide import table_of
from k2.lake import Lake, Snapshot
from k2.lake.ledgers import ledger_files
from k2.log import Log
from k2.model import DICTIONARY_TYPE, Topic

_SPAN: Final = 1 << 24
_READ_BYTES: Final = 16 << 20
_FATES: Final = ("committed", "duplicate", "rejected")

Offsets = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PartitionAudit:
    """One partition's sum. `problem` says what is wrong at `first_wrong_offset`, if anything is.

    Offsets are half-open: `[start_offset, end_offset)` is what the log keeps now.
    """

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    committed: int
    duplicate: int
    rejected: int
    shed: int
    absent: int
    lost: int
    in_flight: int
    first_wrong_offset: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class Audit:
    """All partitions. `ok` if every record has exactly one fate."""

    partitions: tuple[PartitionAudit, ...]

    @property
    def ok(self) -> bool:
        """Whether log and tables agree, record by record."""
        return all(p.problem is None for p in self.partitions)

    def to_dict(self) -> dict[str, object]:
        """As JSON has it: `ok` and `partitions`."""
        return {"ok": self.ok, "partitions": [asdict(p) for p in self.partitions]}


def audit(log: Log, lake: Lake) -> Audit:
    """Count the fate of every record that the log keeps. The system may be running meanwhile."""
    return Audit(tuple(_audit_topics(log, lake)))


def _audit_topics(log: Log, lake: Lake) -> Iterator[PartitionAudit]:
    topics = {name: topic for name in log.topics() if (topic := Topic.parse(name))}
    tables = sorted({table_of(topic.kind) for topic in topics.values()})
    # Tables before the log's ends, and ledgers after the tables: what is committed in between is
    # in flight, never wrong.
    snapshots = {table: lake.table(table).snapshot() for table in tables}
    ledgers = {
        fate: _Cited.by_files([f.path for f in ledger_files(lake, ledger)])
        for fate, ledger in (("duplicate", "duplicates"), ("rejected", "rejected"))
    }
    for table, snapshot in snapshots.items():
        rows = _Cited.by_files([f.path for f in snapshot.files.select()])
        cited = {**ledgers, ("rejected" if table == "rejected" else "committed"): rows}
        for name, topic in sorted(topics.items()):
            if table_of(topic.kind) == table:
                for partition in range(log.topics()[name]):
                    yield _audit_partition(log, snapshot, cited, name, partition)


def _audit_partition(
    log: Log, snapshot: Snapshot, cited: Mapping[str, "_Cited"], topic: str, partition: int
) -> PartitionAudit:
    start, end = log.start_offset(topic, partition), log.end_offset(topic, partition)
    known = snapshot.offsets.get(topic)
    begun = known is not None and partition in known.next_offset
    limit = known.next_offset[partition] if known and begun else start
    places = {
        fate: of.offsets(topic, partition, start, _END if fate == "committed" else limit)
        for fate, of in cited.items()
    }
    counts = {fate: len(places[fate]) if fate in places else 0 for fate in _FATES}
    wrong: list[tuple[int, str]] = []
    if known is not None and known.log_id != log.identity(topic):
        wrong.append((start, "the topic was made anew: the table was written from another log"))
    if limit > end:
        wrong.append((end, f"the log ends here, and the table was committed up to {limit}"))
    absent = in_flight = 0
    for low in range(start, max(end, limit), _SPAN):
        high = min(low + _SPAN, max(end, limit))
        present, problem = _present(log, topic, partition, low, high, end)
        wrong += problem
        decided = np.zeros(high - low, np.int64)
        for place in places.values():
            mine = place[(place >= low) & (place < high)]
            decided += np.bincount(mine - low, minlength=high - low)
        here = np.arange(low, high) < limit
        absent += int(np.count_nonzero(~present[: max(0, end - low)]))
        in_flight += int(np.count_nonzero(present & ~here))
        wrong += _first_wrong(low, present, decided, here)
    if limit == end and not wrong and _rows_past(places, max(end, limit)):
        wrong.append((max(end, limit), "a table has rows past the end of the log"))
    first = min(wrong, default=None)
    unreadable = [problem for of in cited.values() for problem in of.problems]
    told = [*([first[1]] if first else []), *unreadable]
    return PartitionAudit(
        topic,
        partition,
        start,
        end,
        counts["committed"],
        counts["duplicate"],
        counts["rejected"],
        0,
        absent,
        0,
        in_flight,
        first[0] if first else None,
        "; ".join(told) or None,
    )


def _first_wrong(
    low: int,
    present: npt.NDArray[np.bool_],
    decided: npt.NDArray[np.int64],
    committed: npt.NDArray[np.bool_],
) -> list[tuple[int, str]]:
    """The first offset of a span whose number of fates is not what it must be, and how so."""
    expected = (present & committed).astype(np.int64)
    differs = np.flatnonzero(decided != expected)
    if not len(differs):
        return []
    at = int(differs[0])
    if not committed[at]:
        problem = "has a fate already, and no commit has reached it"
    elif decided[at] == 0:
        problem = "has no fate: it is in the log, and neither row nor ledger knows it"
    elif not present[at]:
        problem = "has a fate, and the log holds no such record"
    else:
        problem = f"has {decided[at]} fates"
    return [(low + at, problem)]


def _rows_past(places: Mapping[str, Offsets], end: int) -> bool:
    return any(bool((place >= end).any()) for place in places.values())


def _present(
    log: Log, topic: str, partition: int, low: int, high: int, end: int
) -> tuple[npt.NDArray[np.bool_], list[tuple[int, str]]]:
    """Which offsets of [low, high) hold a record, read from the log itself, which ends at `end`."""
    present = np.zeros(high - low, np.bool_)
    offset = low
    while offset < min(high, end):
        try:
            batches = log.read(topic, partition, offset, _READ_BYTES)
        except K2Error as error:
            return present, [(offset, f"the log cannot be read here: {error}")]
        if not batches:
            break
        for batch in batches:
            mine = batch.offsets[(batch.offsets >= low) & (batch.offsets < high)]
            present[mine - low] = True
            offset = batch.next_offset
    return present, []


@dataclass(frozen=True)
class _Cited:
    """The places in the log that rows of files cite, each as often as it is cited."""

    topics: pa.ChunkedArray
    partitions: npt.NDArray[np.int32]
    all_offsets: Offsets
    problems: tuple[str, ...]

    @classmethod
    def by_files(cls, paths: Sequence[str]) -> "_Cited":
        """Read every file; a path that stands twice is read twice, one that is gone is told."""
        tables, problems = [_CITED.empty_table()], []
        for path in paths:
            try:
                table = pq.read_table(path, columns=_CITED.names, partitioning=None)
                tables.append(table.cast(_CITED))
            except FileNotFoundError:
                # Its rows are missed one by one below; this says why.
                problems.append(f"the file {path} is gone")
            except (OSError, pa.ArrowException) as error:
                problems.append(f"the file {path} cannot be read: {error}")
        found = pa.concat_tables(tables).unify_dictionaries()
        return cls(
            found["log_topic"],
            found["log_partition"].to_numpy(),
            found["log_offset"].to_numpy(),
            tuple(problems),
        )

    def offsets(self, topic: str, partition: int, low: int, high: int) -> Offsets:
        """Offsets of one partition within [low, high), in any order."""
        mask = pc.equal(self.topics, topic).to_numpy() & (self.partitions == partition)
        mask &= (self.all_offsets >= low) & (self.all_offsets < high)
        return self.all_offsets[mask]


_CITED: Final = pa.schema(
    [("log_topic", DICTIONARY_TYPE), ("log_partition", pa.int32()), ("log_offset", pa.int64())]
)
_END: Final = np.iinfo(np.int64).max
