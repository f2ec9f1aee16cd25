"""The proof: every record of the log and its fate, read from log and tables as a stranger would.

Comes in: a log and a lake, live or not. Goes out: for each partition
`end - start = committed + duplicate + rejected + retired + shed + absent + lost + in flight`, and
the first offset that breaks it. Nothing here asks the writer or trusts its memory.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from k2.ingest.citing import CitingFile, Offsets
from k2.ingest.held import Held, LoadedRecords, LogRecords
from k2.ingest.shed import shed_places
from k2.ingest.sift import table_of
from k2.ingest.verified import Place, Verified
from k2.lake import RECORD_TABLES, Lake, LakeTable, Snapshot
from k2.lake.loads import LoadBook
from k2.lake.retired import RetiredPlaces
from k2.log import Log
from k2.model import Topic

_SPAN: Final = 1 << 25
"""Offsets of all partitions that are compared at once: bounds the memory, some bytes an offset."""
_LEAST_SPAN: Final = 1 << 16
"""Those of one, however many there are."""


@dataclass(frozen=True)
class PartitionAudit:
    """One partition's sum. `problem` says what is wrong at `first_wrong_offset`, if anything is.

    Offsets are half-open: `[start_offset, end_offset)` is what the log keeps now, and what it lost
    before that.
    """

    topic: str
    partition: int
    start_offset: int
    end_offset: int
    committed: int
    duplicate: int
    rejected: int
    retired: int
    shed: int
    absent: int
    lost: int
    in_flight: int
    first_wrong_offset: int | None = None
    problem: str | None = None


@dataclass(frozen=True)
class OtherLog:
    """Rows that came from a topic of that name before it was made anew."""

    topic: str
    log_id: str
    rows: int


@dataclass(frozen=True)
class Audit:
    """All partitions. `ok` if every record has exactly one fate.

    `verified`: for each table of which every partition was audited and found sound, what a later
    audit need not read again. Where records were shed and wait it stays what it was: their fates
    come later, and lie before it.
    """

    partitions: tuple[PartitionAudit, ...]
    other_logs: tuple[OtherLog, ...] = ()
    verified: Mapping[str, Verified] = field(default_factory=dict, compare=False)

    @property
    def ok(self) -> bool:
        """Whether log and tables agree, record by record."""
        return all(p.problem is None for p in self.partitions)

    def to_dict(self) -> dict[str, object]:
        """As JSON has it: `ok` and `partitions`, and `other_logs` where there are any."""
        found: dict[str, object] = {
            "ok": self.ok,
            "partitions": [asdict(p) for p in self.partitions],
        }
        if self.other_logs:
            found["other_logs"] = [asdict(log) for log in self.other_logs]
        return found


def audit(
    log: Log,
    lake: Lake,
    *,
    verified: Mapping[str, Verified] | None = None,
    partitions: Collection[tuple[str, int]] = (),
) -> Audit:
    """Count the fate of every record that the log keeps. The system may be running meanwhile.

    `verified`: what an earlier audit gave, from which this one goes on. `partitions`: of these
    alone (topic and number), of all if none is named.
    """
    try:
        return _audit(log, lake, verified or {}, partitions)
    finally:
        # The next one may be long in coming.
        log.rest()


def _audit(
    log: Log, lake: Lake, verified: Mapping[str, Verified], partitions: Collection[tuple[str, int]]
) -> Audit:
    in_log = LogRecords(log)
    logged = in_log.topics()
    wanted = {topic for topic, _ in partitions}
    # Tables before the log's ends, and ledgers after the tables: what is committed in between is
    # in flight, never wrong.
    book = LoadBook.of(lake.folder)
    tables = {table_of(_kind(name)) for name in (*logged, *book.read().ends)}
    tables |= {name for name in (*RECORD_TABLES, "rejected") if lake.has(name)}
    snapshots = {table: lake.table(table).snapshot() for table in sorted(tables)}
    loaded = LoadedRecords(book.read(), snapshots.values())
    every: list[tuple[Held, Mapping[str, Sequence[int]]]] = [
        (in_log, logged),
        (loaded, loaded.topics()),
    ]
    held = {
        name: (each, numbers)
        for each, topics in every
        for name, numbers in topics.items()
        if not wanted or name in wanted
    }
    ledgers = [
        CitingFile(fate, file.path)
        for fate, ledger in (("duplicate", "duplicates"), ("rejected", "rejected"))
        for file in lake.ledger_files(ledger)
    ]
    retired = RetiredPlaces(lake, {name: of.sequence for name, of in snapshots.items()})
    found: list[PartitionAudit] = []
    marks: dict[str, Verified] = {}
    others: Counter[tuple[str, str]] = Counter()
    for table, snapshot in snapshots.items():
        mine = [name for name in held if table_of(_kind(name)) == table]
        if not mine:
            continue
        since = verified.get(table, Verified())
        if table == "rejected":
            rows = snapshot.files.since(since.sequence)
            files = [CitingFile("rejected", f.path, since=since.sequence) for f in rows]
            files += [f for f in ledgers if f.fate == "duplicate"]
        else:
            of_records = table in RECORD_TABLES
            # What was committed up to the mark lies before its offsets.
            rows = snapshot.files.since(since.sequence)
            files = [
                CitingFile("committed", f.path, of_records=of_records, since=since.sequence)
                for f in rows
            ]
            files += ledgers
        tallies = [
            _Tally(held[topic][0], lake, lake.table(table), snapshot, topic, number, since, retired)
            for topic in mine
            for number in held[topic][1]
            if not partitions or (topic, number) in partitions
        ]
        sums = _audit_table(tallies, files)
        found += sums
        if not partitions and not any(each.problem for each in sums):
            reached = Verified(snapshot.sequence, {t.place: t.limit for t in tallies})
            marks[table] = since if snapshot.shed else reached
        ids = {(topic, held[topic][0].identity(topic)) for topic in mine}
        for file in files:
            if file.fate == "committed":
                others += Counter({at: n for at, n in file.rows.items() if at not in ids})
    return Audit(
        tuple(sorted(found, key=lambda p: (p.topic, p.partition))),
        tuple(OtherLog(*at, rows) for at, rows in sorted(others.items())),
        marks,
    )


def _kind(topic: str) -> str:
    parsed = Topic.of_row(topic)
    assert parsed is not None, "only topics of records are audited"
    return parsed.kind


def _audit_table(tallies: Sequence["_Tally"], files: Sequence[CitingFile]) -> list[PartitionAudit]:
    low = 0
    span = max(_LEAST_SPAN, _SPAN // max(1, len(tallies)))
    while any(tally.has(low) for tally in tallies):
        for tally in tallies:
            tally.begin(low, span)
        for file in files:
            for tally in tallies:
                tally.add(file)
            file.release()
        for tally in tallies:
            tally.compare()
        low += span
    problems = [problem for file in files if (problem := file.problem)]
    return [tally.to_audit(problems) for tally in tallies]


class _Tally:
    """One partition's sum, made span by span."""

    def __init__(
        self,
        held: Held,
        lake: Lake,
        table: LakeTable,
        snapshot: Snapshot,
        topic: str,
        partition: int,
        since: Verified,
        retired: RetiredPlaces,
    ) -> None:
        self._topic, self._partition = topic, partition
        self._held = held
        self._retired = retired
        self.place: Place = (topic, held.identity(topic), partition)
        self._kept_from = self._start = held.start_offset(topic, partition)
        self._end = held.end_offset(topic, partition)
        known = snapshot.offsets.get(topic)
        offset = known.next_offset.get(partition) if known else None
        self.limit = self._start if offset is None else offset
        self._counts = dict.fromkeys(("committed", "duplicate", "rejected", "retired"), 0)
        self._absent = self._in_flight = self._lost = self._shed = 0
        self._shed_places = [
            shed_places(lake, each)
            for each in snapshot.shed
            if (each.topic, each.log_id, each.partition) == self.place
        ]
        self._wrong: list[tuple[int, str]] = []
        if known is not None and known.log_id != self.place[1]:
            problem = "the topic was made anew: the table was written from another log"
            self._wrong.append((self._start, problem))
            self.limit = self._start
        elif self.limit < self._start and self._is_lost(table):
            problem = f"was deleted before it was committed; the log begins at {self._start}"
            self._wrong.append((self.limit, problem))
        else:
            self._start = _with_losses(snapshot, self.place, self._start)
        self._start = min(max(self._start, since.offsets.get(self.place, 0)), self._last)
        self._accepted = [
            (loss.first_offset, loss.end_offset)
            for loss in snapshot.losses
            if loss.accepted and (loss.topic, loss.log_id, loss.partition) == self.place
        ]
        self._low = self._high = self._start
        self._fates = np.zeros(0, np.uint8)
        if self.limit > self._end:
            problem = f"{held.called} ends here, and the table was committed up to {self.limit}"
            self._wrong.append((self._end, problem))

    def _is_lost(self, table: LakeTable) -> bool:
        """Or was the log trimmed behind a commit that came after the snapshot?"""
        now = table.snapshot().offsets[self._topic]
        return now.next_offset.get(self._partition, 0) < self._kept_from

    @property
    def _last(self) -> int:
        return max(self._end, self.limit)

    def has(self, low: int) -> bool:
        """Whether there are offsets from `low` on, counted from the start offset."""
        return self._start + low < self._last

    def begin(self, low: int, span: int) -> None:
        """Go on to the next span."""
        self._low = min(self._start + low, self._last)
        self._high = min(self._low + span, self._last)
        self._fates = np.zeros(self._high - self._low, np.uint8)

    def add(self, file: CitingFile) -> None:
        """Count what the file's rows cite of this span."""
        # Ledgers were read after the snapshot: what later commits brought them is not meant here.
        # Rows past everything known are looked for at the last span.
        high = self._high if file.fate == "committed" else min(self._high, self.limit)
        cited = file.offsets(self.place, self._low, high)
        self._counts[file.fate] += len(cited)
        np.add.at(self._fates, cited - self._low, 1)
        if file.fate == "committed" and self._high == self._last:
            past = file.offsets(self.place, self._last, _END)
            if len(past):
                problem = f"a row says that it came from here, past the end of {self._held.called}"
                self._wrong.append((int(past.min()), problem))

    def compare(self) -> None:
        """Hold the span's fates against what the log holds."""
        present = self._present()
        offsets = np.arange(self._low, self._high)
        committed = offsets < self.limit
        kept = offsets >= self._kept_from
        # What a broker deleted last it may have again after a crash: it stays lost.
        back = present & committed & self._among_accepted(offsets) & (self._fates == 0)
        self._lost += int(np.count_nonzero(~kept) + np.count_nonzero(back))
        self._absent += int(np.count_nonzero(~present & kept & (offsets < self._end)))
        self._in_flight += int(np.count_nonzero(present & ~committed))
        # What came late is of a commit that may be past the snapshot, as with other ledgers.
        gone = self._retired.offsets(self.place, self._low, min(self._high, self.limit))
        self._counts["retired"] += len(gone)
        np.add.at(self._fates, gone - self._low, 1)
        shed = self._among_shed(offsets, present)
        self._shed += int(np.count_nonzero(shed))
        self._fates += shed
        differs = np.flatnonzero(self._fates != (present & committed & ~back))
        if len(differs):
            at = int(differs[0])
            states = bool(present[at]), bool(committed[at])
            problem = _problem(int(self._fates[at]), *states, self._held.called)
            self._wrong.append((self._low + at, problem))

    def _among_shed(
        self, offsets: Offsets, present: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Which of them were shed and wait in the log, as the ledger says."""
        found = np.zeros(len(offsets), np.bool_)
        for places in self._shed_places:
            low, high = np.searchsorted(places.offsets, [self._low, self._high])
            found[places.offsets[low:high] - self._low] = True
            for first, end in places.whole:
                # The ledger says "all that is there": an offset may hold no record.
                found |= present & (offsets >= first) & (offsets < end)
        return found

    def _among_accepted(self, offsets: Offsets) -> npt.NDArray[np.bool_]:
        """Which of them an operator accepted as lost."""
        found = np.zeros(len(offsets), np.bool_)
        for first, end in self._accepted:
            found |= (offsets >= first) & (offsets < end)
        return found

    def _present(self) -> npt.NDArray[np.bool_]:
        """Which offsets of the span hold a record."""
        present = np.zeros(self._high - self._low, np.bool_)
        low, high = max(self._low, self._kept_from), min(self._high, self._end)
        if low < high:
            found, wrong = self._held.present(self._topic, self._partition, low, high)
            present[low - self._low : high - self._low] = found
            self._wrong += [] if wrong is None else [wrong]
        return present

    def to_audit(self, unreadable: Sequence[str]) -> PartitionAudit:
        """The sum, and the first of all problems."""
        first = min(self._wrong, key=lambda found: found[0], default=None)
        told = [*([first[1]] if first else []), *unreadable]
        return PartitionAudit(
            self._topic,
            self._partition,
            self._start,
            self._end,
            **self._counts,
            shed=self._shed,
            absent=self._absent,
            lost=self._lost,
            in_flight=self._in_flight,
            first_wrong_offset=first[0] if first else None,
            problem="; ".join(told) or None,
        )


def _with_losses(snapshot: Snapshot, place: Place, start: int) -> int:
    """Where what was lost right before the log's start begins."""
    mine = (x for x in snapshot.losses if (x.topic, x.log_id, x.partition) == place)
    for loss in sorted(mine, key=lambda x: x.end_offset, reverse=True):
        if loss.accepted and loss.end_offset == start:
            start = loss.first_offset
    return start


def _problem(fates: int, present: bool, committed: bool, where: str) -> str:
    if not committed:
        return "has a fate already, and no commit has reached it"
    if fates == 0:
        return f"has no fate: it is in {where}, and neither row nor ledger knows it"
    if not present:
        return f"has a fate, and {where} holds no such record"
    return f"has {fates} fates"


_END: Final = np.iinfo(np.int64).max
