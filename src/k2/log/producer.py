"""Tables of records into the log: schema registered, exchange declared, rows to their partitions.

One symbol's records stay in order: all go to the partition that Kafka would choose.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import Refused, Unavailable
from k2.log.port import Append, Log, Registry
from k2.log.wire import partition_of
from k2.model import Exchange, Schema, Topic, encode, latest
from k2.traces import step

EXCHANGES_TOPIC: Final = "k2.exchanges"
"""Compacted topic of the declared exchanges: name to `Exchange.to_json()`."""

_CLAIMS: Final = "k2.exchanges.claims"
"""Compacted topic of declarations under way: name and an id to facts, or to "" once it is over."""

_KEY: Final = "symbol"

_LOOK_SECONDS: Final = 10.0
"""So often a producer looks whether its topics got more partitions."""


@dataclass(frozen=True)
class Sent:
    """Where records went: `count` of them from `first_offset` on, without a hole."""

    topic: str
    partition: int
    first_offset: int
    count: int


@dataclass(frozen=True)
class _Target:
    topic: str
    partitions: int
    schema: Schema
    schema_id: int


class Producer:
    """Appends tables of records to `log`; new topics get `partitions` partitions. `clock` is
    monotonic, in seconds.

    Neither log nor registry is closed by it. Any thread may send; two that send the same symbol at
    once have no order between them.
    """

    def __init__(
        self,
        log: Log,
        registry: Registry,
        partitions: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._log = log
        self._registry = registry
        self._partitions = partitions
        self._declared: set[tuple[Exchange, tuple[str, ...]]] = set()
        self._targets: dict[Topic, _Target] = {}
        self._looked = self._clock()

    def send(self, exchange: Exchange, kind: str, table: pa.Table) -> list[Sent]:
        """Append the rows and return where they are once they are durable.

        Rows that wait in a spool are durable, and are nowhere yet.

        `table` has the columns of the kind's latest schema. Raises `Refused` if the exchange was
        declared with other facts, or if the registry holds a schema that this one may not follow.
        """
        self.declare(exchange)
        if table.num_rows == 0:
            return []
        topic = Topic(exchange.asset_class, kind, exchange.name)
        with step(
            f"send {topic}",
            messaging__destination__name=str(topic),
            messaging__batch__message_count=table.num_rows,
        ):
            return self._append(topic, table)

    def _append(self, topic: Topic, table: pa.Table) -> list[Sent]:
        target = self._target(topic)
        values = encode(table, target.schema)
        keys = _keys(table)
        if keys is None:
            appends = [Append(target.topic, 0, target.schema_id, values)]
        else:
            appends = _split(target, values, keys)
        found = zip(appends, self._log.append(appends), strict=True)
        sent = [sent for each, offsets in found for sent in _runs(each, offsets)]
        # Not while the log is away, which asking it would wait for.
        if sent and self._clock() - self._looked > _LOOK_SECONDS:
            self._look_for_partitions()
        return sent

    def _look_for_partitions(self) -> None:
        """Somebody may have added some: the next records are spread over these too."""
        self._looked = self._clock()
        try:
            counts = self._log.topics()
        except Unavailable:
            return  # what was sent is there all the same
        for topic, target in list(self._targets.items()):
            count = counts.get(target.topic, target.partitions)
            self._targets[topic] = replace(target, partitions=count)

    def declare(self, exchange: Exchange) -> None:
        """Make the exchange known to whoever reads the log.

        Raises `Refused` if it is declared already, or just now by somebody else, with another
        class, zone or day roll: these shape what is stored. What is numbered adds up.
        """
        if (exchange, exchange.numbered) in self._declared:
            return
        found = self._log.latest(EXCHANGES_TOPIC).get(exchange.name) or self._claim(exchange)
        declared = Exchange.from_json(found)
        if declared != exchange:
            raise Refused(
                f"the exchange {exchange.name} is declared with other facts, which do not change",
                place=f"topic {EXCHANGES_TOPIC}",
                found=exchange.to_json(),
                expected=found,
                hint="use the facts that are declared, or give this exchange another name",
            )
        numbered = tuple(sorted({*declared.numbered, *exchange.numbered}))
        if numbered != declared.numbered:
            more = replace(exchange, numbered=numbered)
            self._log.put(EXCHANGES_TOPIC, exchange.name, more.to_json())
        self._declared.add((exchange, exchange.numbered))

    def _claim(self, exchange: Exchange) -> str:
        """Declare the exchange, unless others do so with other facts; what is declared."""
        # The last value of a key stands, so that of two producers which write at once the first
        # would be overruled unseen. Of two that claim before they look, one at least sees the
        # other: it may be that neither goes on, but never that both do.
        wanted = exchange.to_json()
        mine = f"{exchange.name} {uuid4().hex}"
        self._log.put(_CLAIMS, mine, wanted)
        try:
            claims = {k: v for k, v in self._log.latest(_CLAIMS).items() if v and k != mine}
            # Looked up after the claims: one that has gone from there stands here.
            found = self._log.latest(EXCHANGES_TOPIC).get(exchange.name)
            if found is not None:
                return found
            for key, facts in claims.items():
                if key.startswith(f"{exchange.name} ") and Exchange.from_json(facts) != exchange:
                    return facts
            self._log.put(EXCHANGES_TOPIC, exchange.name, wanted)
            return wanted
        finally:
            self._log.put(_CLAIMS, mine, "")

    def _target(self, topic: Topic) -> _Target:
        if (known := self._targets.get(topic)) is not None:
            return known
        schema = latest(topic.kind)
        schema_id = self._registry.register(topic.subject, schema.avro)
        self._log.create(str(topic), self._partitions)
        # A topic that was there keeps its own number of partitions.
        partitions = self._log.topics()[str(topic)]
        made = self._targets[topic] = _Target(str(topic), partitions, schema, schema_id)
        return made


def _runs(append: Append, offsets: npt.NDArray[np.int64]) -> list[Sent]:
    """One `Sent` for each run of offsets: a new one begins where another's messages stand.

    None for messages that wait on disk for their log: they have no offsets yet.
    """
    if len(offsets) == 0:
        return []
    starts = np.flatnonzero(np.diff(offsets, prepend=offsets[0] - 2) != 1)
    counts = np.diff(starts, append=len(offsets))
    return [
        Sent(append.topic, append.partition, int(offsets[start]), int(count))
        for start, count in zip(starts, counts, strict=True)
    ]


def _keys(table: pa.Table) -> pa.DictionaryArray | None:
    if _KEY not in table.column_names:
        return None
    keys = table[_KEY]
    if not pa.types.is_dictionary(keys.type):
        keys = pc.dictionary_encode(keys)
    return keys.unify_dictionaries().combine_chunks() if keys.num_chunks != 1 else keys.chunk(0)


def _split(target: _Target, values: pa.BinaryArray, keys: pa.DictionaryArray) -> list[Append]:
    """One append for each partition that gets rows, in the order of partitions."""
    partitions = _partitions(keys, target.partitions)
    first = int(partitions[0])
    if (partitions == first).all():
        return [Append(target.topic, first, target.schema_id, values, keys)]
    # Stable: rows of one partition keep their order.
    order = pa.array(np.argsort(partitions, kind="stable"))
    values, keys = values.take(order), keys.take(order)
    counts = np.bincount(partitions, minlength=target.partitions)
    ends = np.cumsum(counts)
    return [
        Append(
            target.topic,
            int(number),
            target.schema_id,
            values.slice(ends[number] - counts[number], counts[number]),
            keys.slice(ends[number] - counts[number], counts[number]),
        )
        for number in np.flatnonzero(counts)
    ]


def _partitions(keys: pa.DictionaryArray, partitions: int) -> npt.NDArray[Any]:
    """The partition of each row; hashes each symbol once, and only those that occur."""
    codes = keys.indices.to_numpy(zero_copy_only=False)
    used = np.unique(codes)
    # As narrow as can be: numpy sorts 8 and 16 bits by radix.
    by_code = np.zeros(len(keys.dictionary), np.min_scalar_type(partitions))
    by_code[used] = [
        partition_of(symbol, partitions) for symbol in keys.dictionary.take(used).to_pylist()
    ]
    return by_code[codes]
