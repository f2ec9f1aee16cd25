"""Which numbers are missing from a table: followed commit by commit, told to the gap ledger.

Comes in: the runs that a commit brings. Goes out: what their records were to their streams, and the
entries of the ledger that belong into the same commit. Everything follows from the table's rows, so
that a restart finds the same.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import pyarrow as pa

from k2.ingest.closed import Closed
from k2.ingest.decide import Decided
from k2.ingest.holes import ALL_HOLES, Found, count_holes, excess, in_ledger, without
from k2.ingest.loss import CAUSE as LOSS
from k2.ingest.sequence import DUPLICATE, UNKNOWN, Hole, State, Stream, Tracked, bounded, track
from k2.ingest.streams import Followed, by_topic, keep_states, numbered, read_states, replay
from k2.lake import Lake, LakeTable, Loss, ShedRange, Snapshot
from k2.lake.ledgers import to_rows
from k2.model import Exchange, Topic, micros

SMALL: Final = 10
"""Gaps of so many missing numbers are small, those of more are large."""

_AT_ONCE: Final = -(10**18)
"""A grace before any time: clocks differ, and the silence itself was waited for."""

States = Mapping[Stream, State]
Owned = Mapping[str, Collection[int]]
"""The partitions of each topic that a writer reads."""


@dataclass(frozen=True)
class Sequenced:
    """What a commit's records were (`counts`, by status), the entries of the gap ledger that go
    with it (of `small` and `large` gaps), and the streams that are different after it.
    """

    counts: Mapping[str, int]
    gaps: pa.Table
    small: int
    large: int
    changed: States = field(repr=False)


class Sequences:
    """The streams of one table of trades or quotes, as of a snapshot. One thread at a time.

    A hole is told to the gap ledger once records of its partition came that were first seen `grace`
    after it, or once nothing comes any more (`overdue`), unless the ledger has it from a feed: most
    are closed by what was only late. Of more than `most_holes` in all, the oldest stand in the
    ledger alone; if need be they are told before their time.
    """

    def __init__(
        self,
        lake: Lake,
        table: LakeTable,
        snapshot: Snapshot,
        grace: timedelta,
        most_holes: int = ALL_HOLES,
    ) -> None:
        self._lake = lake
        self._table = table
        self._snapshot = snapshot
        self._grace = grace // _MICROSECOND
        self._most = most_holes
        self._relieved = 2 * most_holes
        """So many holes are met in rows of the past before the ledger is asked which it has."""
        self._states: dict[Stream, State] | None = None
        self._untold: set[Stream] = set()
        self._listed: dict[str, int] = {}
        self._looked_at: set[str] = set()
        """Files of the ledger that tell of no hole to come: these streams were as far as the table
        was when the file was first seen (`_listed`)."""

    @property
    def states(self) -> States:
        """Every stream, as the snapshot's rows say. Raises `Broken` for a file that is damaged."""
        return self._read()

    def sequence(self, runs: Sequence[Decided], exchanges: Collection[Exchange]) -> Sequenced:
        """What the runs of one commit, decided on this snapshot, are to their streams.

        Nothing changes here until `advance`. Raises as `states` does.
        """
        kind, states = self._table.name, self._read()
        counting = _counting(kind, exchanges)
        counts: Counter[str] = Counter()
        changed: dict[Stream, State] = {}
        latest: dict[tuple[str, int], _Seen] = {}
        for topic, rows in by_topic((run.topic, run.rows) for run in runs).items():
            exchange = _exchange(topic)
            if exchange not in counting:
                counts[UNKNOWN] += rows.num_rows
                continue
            of = numbered(exchange, kind, rows)
            found = track(states, of)
            counts.update(found.counts)
            counts[UNKNOWN] += rows.num_rows - len(of.numbers)
            changed |= self._explained(found, topic, runs)
            latest |= {(exchange, seen.partition): seen for seen in _latest(rows)}
        counts[DUPLICATE] += sum(run.duplicates.num_rows for run in runs)
        return self._told(counts, changed, latest, self._grace)

    def overdue(self, now: datetime, owned: Owned | None) -> Sequenced | None:
        """All that is missing, for the gap ledger: of partitions (`owned`: of these alone) in which
        nothing comes any more. None if nothing is. As `sequence`, with no records.
        """
        states = self._read()
        if not self._untold:
            return None
        at = (now - _EPOCH) // _MICROSECOND
        last = {
            (_exchange(topic), partition): _Seen(topic, of.log_id, partition, at)
            for topic, of in self._snapshot.offsets.items()
            for partition in of.next_offset
            if owned is None or partition in owned.get(topic, ())
        }
        found = self._told(Counter(), {}, last, _AT_ONCE)
        if found.small or found.large:
            return found
        # The ledger had all of it from feeds, or there is nothing here to tell of.
        states |= found.changed
        self._note(found.changed)
        return None

    def advance(self, snapshot: Snapshot, others: Sequence[str], mine: Sequenced | None) -> None:
        """Go on from a later snapshot: with what `mine` changed, if that is what was committed, and
        the rows of its files `others`, which were not committed here.
        """
        if self._states is not None:
            changed = dict(mine.changed) if mine else {}
            self._states |= changed
            self._note(changed)
            if others:
                since = self._snapshot.sequence
                replay(self._states, snapshot, others, since, self._followed(snapshot))
                self._note(self._states)
        self._snapshot = snapshot

    def save(self) -> None:
        """Keep the streams for whoever starts next."""
        if self._states is not None:
            keep_states(self._table, self._snapshot.sequence, self._states)

    def _read(self) -> dict[Stream, State]:
        if self._states is None:
            of = self._followed(self._snapshot)
            self._states = read_states(self._table, self._snapshot, of)
            self._forget_retired(self._states)
            self._note(self._states)
        return self._states

    def _followed(self, snapshot: Snapshot) -> Followed:
        counting = _counting(self._table.name, snapshot.exchanges.values())
        return Followed(self._table.name, counting, self._relieve)

    def _relieve(self, states: dict[Stream, State]) -> None:
        """Where rows of the past show more holes than memory holds, those go that the ledger has:
        they were told of in commits that are yet to be met.
        """
        if count_holes(states) <= self._relieved:
            return
        untold = _untold(states, states)
        files = [file.path for file in self._lake.ledger_files("gaps")]
        known = in_ledger(files, self._table.name, untold)
        states |= _as_told(states, [each for each, has in zip(untold, known, strict=True) if has])
        gone = excess(states, self._most, lambda hole: hole.told, lambda stream, hole: False)
        states |= without(states, gone)
        self._relieved = max(2 * self._most, count_holes(states) + self._most)

    def _forget_retired(self, states: dict[Stream, State]) -> None:
        """Of what was taken out of the table, rows cannot tell that it had been there."""
        if not self._snapshot.retired.commit:
            return
        closed = Closed(self._lake, self._table.name)
        for stream, state in states.items():
            exchange = self._snapshot.exchanges.get(stream[0])
            if exchange is None or not state.holes:
                continue
            left = tuple(
                hole
                for hole in state.holes
                if not closed.between(
                    exchange,
                    stream[1],
                    (_time(hole.before.timestamp), _time(hole.after.timestamp)),
                    self._snapshot.retired,
                )[0]
            )
            states[stream] = state._replace(holes=left)

    def _note(self, changed: States) -> None:
        for stream, state in changed.items():
            if any(not hole.told for hole in state.holes):
                self._untold.add(stream)
            else:
                self._untold.discard(stream)

    # ------------------------------------------------------------------ why

    def _explained(self, found: Tracked, topic: str, runs: Sequence[Decided]) -> States:
        """The streams that changed, each new hole with its cause."""
        if not found.opened:
            return found.changed
        why = _Causes(self._snapshot, topic, runs)
        changed = dict(found.changed)
        opened = found.opened.keys()
        for stream in {stream for stream, _ in found.opened.values()}:
            state = changed[stream]
            holes = [
                hole._replace(cause=why.of(stream, hole)) if id(hole) in opened else hole
                for hole in state.holes
            ]
            changed[stream] = state._replace(holes=tuple(holes))
        return changed

    # ------------------------------------------------------------------ telling

    def _told(
        self,
        counts: Mapping[str, int],
        changed: dict[Stream, State],
        latest: "Mapping[tuple[str, int], _Seen]",
        grace: int,
    ) -> Sequenced:
        """With the entries of the holes that are `grace` (microseconds) older than the latest of
        their partition, in streams that `changed` or did not; and of those that memory lets go of.
        """
        states = {**self._read(), **changed}
        untold = _untold(states, self._untold | changed.keys())
        due = {id(hole) for stream, hole in untold if _is_due(stream, hole, latest, grace)}
        known: set[int] = set()
        if due or count_holes(states) > self._most:
            known = self._heard(untold)
        told = due | known
        gone = excess(
            states,
            self._most,
            lambda hole: hole.told or id(hole) in told,
            lambda stream, hole: (stream[0], hole.after.partition) in latest,
        )
        told |= {id(hole) for _, hole in gone if not hole.told}
        fresh = told - known
        new = sorted(each for each in untold if id(each[1]) in fresh)
        changed |= _as_told(states, [each for each in untold if id(each[1]) in told])
        changed |= without({**states, **changed}, gone)
        small = sum(hole.last - hole.first < SMALL for _, hole in new)
        entries = [_entry(self._table.name, stream, hole, latest) for stream, hole in new]
        changed = {stream: bounded(state) for stream, state in changed.items()}
        return Sequenced(counts, to_rows("gaps", entries), small, len(new) - small, changed)

    def _heard(self, untold: Sequence[Found]) -> set[int]:
        """By `id()`, the holes that the ledger has from others, in files not looked at before."""
        paths = {file.path for file in self._lake.ledger_files("gaps")} - self._looked_at
        # Asked after the files: none of these is of a later commit. A hole may be told of by the
        # commit that opens it, which these streams may not have come to.
        head = self._table.snapshot().sequence
        for path in paths:
            self._listed.setdefault(path, head)
        self._looked_at |= {p for p in paths if self._listed[p] <= self._snapshot.sequence}
        known = in_ledger(sorted(paths), self._table.name, untold)
        return {id(hole) for (_, hole), has in zip(untold, known, strict=True) if has}


def _untold(states: States, streams: Iterable[Stream]) -> list[Found]:
    """The holes of these streams that nobody has told of."""
    return [(stream, hole) for stream in streams for hole in states[stream].holes if not hole.told]


def _as_told(states: States, told: Iterable[Found]) -> dict[Stream, State]:
    """The streams that have one of these holes, these marked as told."""
    firsts: dict[Stream, set[int]] = defaultdict(set)
    for stream, hole in told:
        firsts[stream].add(hole.first)
    return {
        stream: states[stream]._replace(
            holes=tuple(
                hole._replace(told=True) if hole.first in mine else hole
                for hole in states[stream].holes
            )
        )
        for stream, mine in firsts.items()
    }


@dataclass(frozen=True)
class _Seen:
    """The record of a partition that was first seen last (microseconds UTC)."""

    topic: str
    log_id: str
    partition: int
    ingested: int


def _is_due(
    stream: Stream, hole: Hole, latest: Mapping[tuple[str, int], _Seen], grace: int
) -> bool:
    seen = latest.get((stream[0], hole.after.partition))
    return seen is not None and seen.ingested - hole.after.ingested >= grace


def _latest(rows: pa.Table) -> Iterator[_Seen]:
    """Of each partition in the rows of one topic."""
    if not rows.num_rows:
        return
    topic, log_id = str(rows["log_topic"][0]), str(rows["log_id"][0])
    partitions, ingested = rows["log_partition"].to_numpy(), micros(rows["ingestion_timestamp"])
    for partition in np.unique(partitions).tolist():
        yield _Seen(topic, log_id, partition, int(ingested[partitions == partition].max()))


class _Causes:
    """Why numbers of a topic are missing, as far as what lies between the two records says."""

    def __init__(self, snapshot: Snapshot, topic: str, runs: Sequence[Decided]) -> None:
        shed = [*snapshot.shed, *(each.range for run in runs for each in run.shed)]
        self._ranges: list[tuple[str, ShedRange | Loss]] = [
            ("shed", each) for each in shed if each.topic == topic
        ]
        self._ranges += [(LOSS, each) for each in snapshot.losses if each.topic == topic]
        self._rejected: dict[tuple[str | None, int], list[int]] = defaultdict(list)
        for run in runs:
            if run.topic == topic and run.rejected.num_rows:
                names = ("symbol", "log_partition", "log_offset")
                columns = (run.rejected[name].to_pylist() for name in names)
                for symbol, partition, offset in zip(*columns, strict=True):
                    self._rejected[symbol, partition].append(offset)

    def of(self, stream: Stream, hole: Hole) -> str:
        """The cause of a hole that just opened."""
        first, partition, end = hole.before.offset, hole.after.partition, hole.after.offset
        if hole.before.partition == partition:
            for cause, each in self._ranges:
                if (
                    each.partition == partition
                    and each.first_offset < end
                    and first < each.end_offset
                ):
                    return cause
            for symbol in (stream[1], None):
                if any(first < offset < end for offset in self._rejected[symbol, partition]):
                    return "rejected"
        return "unknown"


def _counting(kind: str, exchanges: Iterable[Exchange]) -> set[str]:
    return {each.name for each in exchanges if kind in each.numbered}


def _exchange(topic: str) -> str:
    parsed = Topic.of_row(topic)
    assert parsed is not None, "only topics of records are decided"
    return parsed.exchange


def _entry(
    kind: str, stream: Stream, hole: Hole, latest: Mapping[tuple[str, int], _Seen]
) -> dict[str, Any]:
    """The hole as an entry of the ledger; its place in the log is that of the record behind it."""
    exchange, symbol, id_space = stream
    seen = latest[exchange, hole.after.partition]
    return {
        "exchange": exchange,
        "symbol": symbol,
        "id_space": id_space or None,
        "kind": kind,
        "first_missing": hole.first,
        "last_missing": hole.last,
        "from_timestamp": _time(hole.before.timestamp),
        "to_timestamp": _time(hole.after.timestamp),
        "cause": hole.cause,
        "ingestion_timestamp": _time(seen.ingested),
        "log_topic": seen.topic,
        "log_id": seen.log_id,
        "log_partition": seen.partition,
        "log_offset": hole.after.offset,
    }


def _time(us: int) -> datetime:
    return _EPOCH + us * _MICROSECOND


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
