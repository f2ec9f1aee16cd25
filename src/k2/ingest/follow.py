"""One kind of record, followed through the log: read what has come, decide it.

Comes in: a snapshot, whose offsets say where to begin. Goes out: `Decided` runs, in log order of
each partition. Writer and tail both follow, so that an answer now equals the one after the commit.
"""

from collections.abc import Mapping
from datetime import timedelta

from k2.errors import Broken, K2Error, NotFound, Refused, Unavailable
from k2.ingest.decide import Decided, Decider
from k2.ingest.known import Known
from k2.lake import LakeTable, Snapshot
from k2.log import EXCHANGES_TOPIC, Batch, Log, Registry
from k2.model import Exchange, Topic


class Follower:
    """Reads and decides the messages of one kind, from a snapshot's offsets on.

    One thread at a time.

    `waiting` names the topics that cannot go on now, with the error that says why: an exchange
    that nobody declared, a schema that this K2 is too old for, a registry that is away.
    """

    def __init__(
        self,
        kind: str,
        log: Log,
        registry: Registry,
        table: LakeTable,
        snapshot: Snapshot,
        skew: timedelta,
    ) -> None:
        self.kind = kind
        self.waiting: dict[str, K2Error] = {}
        self.next_offset: dict[str, dict[int, int]] = {}
        self._log = log
        self._registry = registry
        self._skew = skew
        self._known = Known(kind, table, snapshot)
        self._deciders: dict[str, Decider] = {}
        self._log_ids: dict[str, str] = {}

    @property
    def snapshot(self) -> Snapshot:
        """The snapshot that known records are looked up in."""
        return self._known.snapshot

    @property
    def exchanges(self) -> Mapping[str, Exchange]:
        """The exchanges that decided records belong to."""
        declared = {t: self._exchange(t) for t in map(Topic.parse, self._deciders) if t}
        return {exchange.name: exchange for exchange in declared.values()}

    @property
    def log_ids(self) -> Mapping[str, str]:
        """Identity of each topic that was followed."""
        return self._log_ids

    def advance(self, snapshot: Snapshot) -> None:
        """Look known records up in a later snapshot from now on."""
        self._known.advance(snapshot)
        for topic, offsets in snapshot.offsets.items():
            mine = self.next_offset.get(topic, {})
            for partition, offset in offsets.next_offset.items():
                if partition in mine:
                    mine[partition] = max(mine[partition], offset)

    def save(self) -> None:
        """Keep what is known of identities, for whoever starts next."""
        self._known.save()

    def poll(self, max_bytes: int) -> list[Decided]:
        """Decide about `max_bytes` more of each topic's messages; empty means "none yet".

        Raises `Broken` when the log is not the one that the table was written from: shorter than
        the table's offsets, trimmed past them, or made anew.
        """
        decided = []
        for name, partitions in self._log.topics().items():
            topic = Topic.parse(name)
            if topic is None or topic.kind != self.kind:
                continue
            batches = self._read(name, partitions, max_bytes)
            if not batches:
                continue
            try:
                decided.append(self._decider(topic).decide(batches))
            except (Refused, Unavailable) as error:
                self.waiting[name] = error
                continue
            self.waiting.pop(name, None)
            self.next_offset[name].update(decided[-1].next_offset)
        return decided

    def lag(self) -> int:
        """Messages between what was decided and the log's end."""
        lag = 0
        for name, partitions in self._log.topics().items():
            topic = Topic.parse(name)
            if topic is not None and topic.kind == self.kind:
                mine = self._begin(name, partitions)
                lag += sum(self._log.end_offset(name, p) - mine[p] for p in range(partitions))
        return lag

    def _read(self, topic: str, partitions: int, max_bytes: int) -> list[Batch]:
        batches = []
        mine = self._begin(topic, partitions)
        for partition in range(partitions):
            offset = mine[partition]
            end = self._log.end_offset(topic, partition)
            if offset < end:
                batches += self._log.read(topic, partition, offset, max_bytes)
            elif offset > end:
                raise self._shorter(topic, partition, offset, end)
        return batches

    def _begin(self, topic: str, partitions: int) -> dict[int, int]:
        """Where to go on in each partition, found and checked when it is first met."""
        mine = self.next_offset.setdefault(topic, {})
        if len(mine) == partitions:
            return mine
        self._log_ids[topic] = log_id = self._log.identity(topic)
        committed = self.snapshot.offsets.get(topic)
        if committed is not None and committed.log_id != log_id:
            raise Broken(
                "the topic was made anew: this is another log than the table was written from",
                place=topic,
                found=log_id,
                expected=committed.log_id,
            )
        for partition in range(partitions):
            start = self._log.start_offset(topic, partition)
            offset = committed.next_offset.get(partition) if committed else None
            if offset is not None and offset < start:
                raise Broken(
                    f"the log begins at offset {start}, and the table needs {offset}: "
                    f"{start - offset} records were deleted before they were committed",
                    place=f"{topic}[{partition}]",
                )
            mine.setdefault(partition, start if offset is None else offset)
        return mine

    def _shorter(self, topic: str, partition: int, offset: int, end: int) -> Broken:
        return Broken(
            f"the log ends at offset {end}, and the table was committed up to {offset}: "
            "the log lost what the table holds",
            place=f"{topic}[{partition}]",
            hint="restore the log, or its copy; `k2 audit` names the first offset that differs",
        )

    def _decider(self, topic: Topic) -> Decider:
        name = str(topic)
        if name not in self._deciders:
            self._deciders[name] = Decider(
                topic,
                self._log_ids[name],
                self._exchange(topic),
                self._registry,
                self._known,
                self._skew,
            )
        return self._deciders[name]

    def _exchange(self, topic: Topic) -> Exchange:
        stored = self.snapshot.exchanges.get(topic.exchange)
        if stored is not None:
            return stored
        try:
            return Exchange.from_json(self._log.latest(EXCHANGES_TOPIC)[topic.exchange])
        except (KeyError, NotFound) as error:
            raise Unavailable(
                f"the exchange {topic.exchange} was never declared: its zone is not known",
                place=str(topic),
                hint="feeds and mappings declare their exchanges; the records wait in the log",
            ) from error
