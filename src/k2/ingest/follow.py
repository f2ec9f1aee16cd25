"""One kind of record, followed through the log: read what has come, decide it.

Comes in: a snapshot, whose offsets say where to begin. Goes out: `Decided` runs, in log order of
each partition. Writer and tail both follow, so that an answer now equals the one after the commit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from k2.errors import Broken, Conflict, K2Error, NotFound, Refused, Unavailable
from k2.ingest.closed import Closed
from k2.ingest.decide import Decided, Decider
from k2.ingest.known import Known
from k2.ingest.shed import Shedding
from k2.lake import LakeTable, Offsets, Snapshot
from k2.log import EXCHANGES_TOPIC, Batch, Log, Registry
from k2.model import Exchange, Topic


class Follower:
    """Reads and decides the messages of one kind, from a snapshot's offsets on.

    One thread at a time.

    `waiting` names the topics that cannot go on now, with the error that says why: an exchange
    that nobody declared, a schema that this K2 is too old for, a registry that is away. `stopped`
    names the partitions, as (topic, partition), of which log and table do not belong together:
    the log is shorter than the table's offsets, was trimmed past them, or was made anew. Nothing
    more of them is read here. `seen` has, for each partition that is read, the offset at which
    reading it began here, and the log's end (exclusive) as it was seen last. What is `closed` is
    not kept (None: all is).
    """

    def __init__(
        self,
        kind: str,
        log: Log,
        registry: Registry,
        table: LakeTable,
        snapshot: Snapshot,
        skew: timedelta,
        closed: Closed | None = None,
    ) -> None:
        self.kind = kind
        self.waiting: dict[str, K2Error] = {}
        self.stopped: dict[tuple[str, int], K2Error] = {}
        self.next_offset: dict[str, dict[int, int]] = {}
        self.seen: dict[tuple[str, int], tuple[int, int]] = {}
        self._log = log
        self._registry = registry
        self._skew = skew
        self._closed = closed
        self._known = Known(kind, table, snapshot)
        self._deciders: dict[str, Decider] = {}
        self._exchanges: dict[str, Exchange] = {}
        self._log_ids: dict[str, str] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that known records are looked up in."""
        return self._known.snapshot

    @property
    def exchanges(self) -> Mapping[str, Exchange]:
        """The exchanges that decided records belong to."""
        return self._exchanges

    @property
    def log_ids(self) -> Mapping[str, str]:
        """Identity of each topic that was followed."""
        return self._log_ids

    def advance(
        self, snapshot: Snapshot, others: Sequence[str] = (), *, only_reads: bool = False
    ) -> None:
        """Look known records up in a later snapshot from now on.

        `others`: its files with rows that were not decided here; who `only_reads` has decided each
        row before the next offset. Raises `Conflict` where these could change what was decided and
        is not committed.
        """
        before = self.snapshot
        decided = {(t, p): offset for t, of in self.next_offset.items() for p, offset in of.items()}
        self._known.advance(snapshot, others, decided if only_reads else None)
        for place in [*self.stopped]:
            # Whoever moved the table's offset, or let it begin in another log, has settled it.
            if offset_in(before.offsets, place) != offset_in(snapshot.offsets, place):
                del self.stopped[place]
                self.next_offset.get(place[0], {}).pop(place[1], None)
        for topic, offsets in snapshot.offsets.items():
            mine = self.next_offset.get(topic, {})
            for partition, offset in offsets.next_offset.items():
                if partition in mine:
                    mine[partition] = max(mine[partition], offset)

    def save(self) -> None:
        """Keep what is known of identities, for whoever starts next."""
        self._known.save()

    def poll(
        self,
        max_bytes: int,
        owned: Mapping[str, Iterable[int]] | None = None,
        shedding: Shedding | None = None,
    ) -> list[Decided]:
        """Decide about `max_bytes` more of each topic's messages; empty means "none yet".

        `owned`: the partitions of each topic that are to be read, all of them if None. `shedding`:
        what is left in the log now. Raises `Conflict` when a topic was made anew since it was
        first read here.
        """
        decided = []
        for name, partitions in self._log.topics().items():
            topic = Topic.parse(name)
            if topic is None or topic.kind != self.kind:
                continue
            mine = range(partitions) if owned is None else sorted(owned.get(name, ()))
            batches = self._read(name, [p for p in mine if p < partitions], max_bytes)
            if not batches:
                continue
            try:
                decider = self._decider(topic)
                decided.append(decider.decide(batches, self.next_offset[name], shedding))
            except (Refused, Unavailable) as error:
                self.waiting[name] = error
                continue
            self.waiting.pop(name, None)
            self.next_offset[name].update(decided[-1].next_offset)
        return decided

    def meet(self, owned: Mapping[str, Iterable[int]] | None) -> None:
        """Find where reading begins of each partition (of those `owned`), and read nothing."""
        for name, partitions in self._log.topics().items():
            topic = Topic.parse(name)
            if topic is not None and topic.kind == self.kind:
                for partition in range(partitions) if owned is None else owned.get(name, ()):
                    self._begin(name, partition)

    def decide_shed(
        self,
        topic: str,
        partition: int,
        batches: Sequence[Batch],
        shedding: Shedding | None = None,
    ) -> Decided:
        """Decide messages that were shed before, but those that `shedding` leaves in the log once
        more: no offset moves. Raises as `Decider.decide` does, and `Conflict` if the topic was made
        anew.
        """
        self._begin(topic, partition)
        parsed = Topic.parse(topic)
        if parsed is None or self._log.identity(topic) != self._log_ids[topic]:
            raise Conflict("the topic was made anew", place=topic)
        decided = self._decider(parsed).decide(batches, dict.fromkeys((partition,), 0), shedding)
        return replace(decided, first_offset={}, next_offset={})

    def is_committed(self, topic: str, partition: int) -> bool:
        """Whether all that was read of the partition is in the snapshot."""
        read = self.next_offset.get(topic, {}).get(partition)
        committed = self.snapshot.offsets.get(topic)
        return read is None or (
            committed is not None and committed.next_offset.get(partition) == read
        )

    def behind(self) -> int:
        """Messages between what was decided and the log's end as last seen; nobody is asked."""
        return sum(
            max(0, end - self.next_offset.get(topic, {}).get(partition, end))
            for (topic, partition), (_, end) in self.seen.items()
        )

    def lag(self) -> int:
        """Messages between what was decided and the log's end."""
        lag = 0
        for name in self._log.topics():
            topic = Topic.parse(name)
            if topic is not None and topic.kind == self.kind:
                for partition, end in enumerate(self._log.end_offsets(name)):
                    if self._begin(name, partition):
                        lag += end - self.next_offset[name][partition]
        return lag

    def _read(self, topic: str, partitions: Sequence[int], max_bytes: int) -> list[Batch]:
        batches: list[Batch] = []
        ends = self._log.end_offsets(topic) if partitions else []
        for partition in partitions:
            # One that was added just now is met next time.
            if partition >= len(ends) or not self._begin(topic, partition):
                continue
            offset, end = self.next_offset[topic][partition], ends[partition]
            began, _ = self.seen.get((topic, partition), (offset, end))
            self.seen[topic, partition] = began, end
            if offset < end:
                batches += self._read_partition(topic, partition, offset, max_bytes)
            elif offset > end:
                self._stop(topic, partition, _shorter(offset, end))
        if batches and self._log.identity(topic) != self._log_ids[topic]:
            # After reading: what was read before a topic is made anew is of the old one.
            raise Conflict("the topic was made anew", place=topic)
        return batches

    def _read_partition(
        self, topic: str, partition: int, offset: int, max_bytes: int
    ) -> list[Batch]:
        try:
            return self._log.read(topic, partition, offset, max_bytes)
        except NotFound:
            start = self._log.start_offset(topic, partition)
            if start <= offset:
                raise
            self._stop(topic, partition, _trimmed(offset, start))
            return []

    def _begin(self, topic: str, partition: int) -> bool:
        """Whether the partition can be read; where, is found when it is first met."""
        if (topic, partition) in self.stopped:
            return False
        mine = self.next_offset.setdefault(topic, {})
        if partition in mine:
            return True
        if topic not in self._log_ids:
            self._log_ids[topic] = self._log.identity(topic)
        start = self._log.start_offset(topic, partition)
        committed = self.snapshot.offsets.get(topic)
        if committed is not None and committed.log_id != self._log_ids[topic]:
            self._stop(topic, partition, _made_anew(committed.log_id, self._log_ids[topic]))
            return False
        offset = committed.next_offset.get(partition) if committed else None
        if offset is not None and offset < start:
            self._stop(topic, partition, _trimmed(offset, start))
            return False
        mine[partition] = start if offset is None else offset
        return True

    def _stop(self, topic: str, partition: int, error: Broken) -> None:
        error.place = f"{topic}[{partition}]"
        self.stopped[topic, partition] = error

    def _decider(self, topic: Topic) -> Decider:
        name = str(topic)
        if name not in self._deciders:
            exchange = exchange_of(self._log, topic, self.snapshot)
            self._exchanges[exchange.name] = exchange
            self._deciders[name] = Decider(
                topic,
                self._log_ids[name],
                exchange,
                self._registry,
                self._known,
                self._skew,
                self._closed,
            )
        return self._deciders[name]


def exchange_of(log: Log, topic: Topic, snapshot: Snapshot) -> Exchange:
    """The facts of the topic's exchange: as the table has them, or as they were declared. Raises
    `Unavailable` where they never were.
    """
    stored = snapshot.exchanges.get(topic.exchange)
    try:
        found = Exchange.from_json(log.latest(EXCHANGES_TOPIC)[topic.exchange])
    except (KeyError, NotFound) as error:
        if stored is not None:
            return stored
        raise Unavailable(
            f"the exchange {topic.exchange} was never declared: its zone is not known",
            place=str(topic),
            hint="feeds and mappings declare their exchanges; the records wait in the log",
        ) from error
    # What shapes stored data stays as it was; kinds may have been numbered since.
    return found if stored is None else replace(stored, numbered=found.numbered)


def offset_in(offsets: Offsets, place: tuple[str, int]) -> tuple[str, int | None] | None:
    """Of which log, and up to where (exclusive), a table holds this (topic, partition)."""
    of = offsets.get(place[0])
    return None if of is None else (of.log_id, of.next_offset.get(place[1]))


def _shorter(offset: int, end: int) -> Broken:
    return Broken(
        f"the log ends at offset {end}, and the table was committed up to {offset}: "
        "the log lost what the table holds",
        hint="restore the log, or its copy; `k2 audit` names the first offset that differs",
    )


def _trimmed(offset: int, start: int) -> Broken:
    return Broken(
        f"the log begins at offset {start}, and the table needs {offset}: "
        f"{start - offset} records were deleted before they were committed",
        hint="`k2 ingest --accept-loss` goes on behind them; they stay in the gap ledger",
    )


def _made_anew(before: str, now: str) -> Broken:
    return Broken(
        "the topic was made anew: this is another log than the table was written from",
        found=now,
        expected=before,
        hint="a writer begins at its start, and keeps the rows of the old one",
    )
