"""The log on Apache Kafka: `kafka:HOST:PORT[,HOST:PORT…][?option=value&…]`.

A record is a message in Confluent's wire format, its key the symbol. Topics have no clock of
their own: what is deleted, K2 deletes by `trim`.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from k2.errors import BadInput, Refused
from k2.log.kafka.cluster import Cluster, to_place
from k2.log.kafka.group import KafkaMembership
from k2.log.kafka.latest import Latest
from k2.log.kafka.reader import Reader
from k2.log.kafka.sender import Parcel, Sender
from k2.log.port import NOT_WIRE_FORMAT, Access, Append, Batch
from k2.log.wire import to_wire
from k2.model import Topic

_READERS: Final = 64
"""Partitions that are read ahead at once; the one read longest ago makes room."""

IDLE_SECONDS: Final = 60.0
"""After so long a partition that nobody reads is not read ahead any more."""
_SAMPLE_BYTES: Final = 1 << 18
_MILLISECOND: Final = timedelta(milliseconds=1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_KEPT_UNTIL_TRIMMED: Final = {
    "cleanup.policy": "delete",
    "retention.ms": "-1",
    "retention.bytes": "-1",
    # By the broker's clock, which only goes on: retention by age asks where a time begins.
    "message.timestamp.type": "LogAppendTime",
}
_COMPACTED: Final = {"cleanup.policy": "compact"}


def open_log(rest: str, access: Access | None = None) -> "KafkaLog":
    """The log on the cluster that `rest` names; it is first reached when it is first used."""
    return KafkaLog(Cluster(to_place(rest), access))


class KafkaLog:
    """`k2.log.port.Log` on a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._sender = Sender(cluster)
        self._lock = threading.Lock()
        self._readers: OrderedDict[tuple[str, int], Reader] = OrderedDict()
        self._latest: dict[str, Latest] = {}

    def create(self, topic: str, partitions: int) -> None:
        """Make the topic if there is none."""
        if partitions < 1:
            raise Refused("a topic has at least one partition", place=f"topic {topic}")
        if Topic.parse(topic) is None:
            expected = str(Topic("{asset class}", "{kind}", "{exchange}"))
            raise Refused("this is no topic of records", place=f"topic {topic}", expected=expected)
        self._cluster.create(topic, partitions, _KEPT_UNTIL_TRIMMED)

    def topics(self) -> Mapping[str, int]:
        """Names of the topics of records, and their partition counts, at most a second old."""
        return self._cluster.topics()

    def identity(self, topic: str) -> str:
        """Kafka's topic id."""
        return self._cluster.identity(topic)

    def append(self, appends: Sequence[Append]) -> list[npt.NDArray[np.int64]]:
        """Append each; the offsets of its messages."""
        for each in appends:
            self._cluster.check(each.topic, each.partition)
        return self._sender.send([_to_parcel(each) for each in appends])

    def read(self, topic: str, partition: int, offset: int, max_bytes: int) -> list[Batch]:
        """What was fetched ahead, or comes by fetching once; at most one batch."""
        self._cluster.check(topic, partition)
        reader = self._reader(topic, partition)
        with reader.lock:
            return reader.read(offset, max_bytes)

    def start_offset(self, topic: str, partition: int) -> int:
        """Offset of the oldest message kept, or the end offset."""
        return self._cluster.start(topic, partition)

    def end_offset(self, topic: str, partition: int) -> int:
        """End of what can be read: before it lies no open transaction."""
        return self._cluster.end(topic, partition)

    def end_offsets(self, topic: str) -> Sequence[int]:
        """The end offset of each partition, by one question to each broker."""
        return self._cluster.ends(topic)

    def offset_at(self, topic: str, partition: int, when: datetime) -> int:
        """First offset appended at or after `when`, in milliseconds of the broker's clock."""
        # Rounded up: what was appended earlier in the same millisecond is not after it.
        milliseconds = -((_EPOCH - when) // _MILLISECOND)
        found = self._cluster.offset_at(topic, partition, max(0, milliseconds))
        return self.end_offset(topic, partition) if found is None else found

    def size(self, topic: str, partition: int) -> int:
        """An estimate: the offsets kept, times what a message at their start takes on the wire.

        Kafka tells its clients no sizes; compression is not counted.
        """
        start = self.start_offset(topic, partition)
        kept = self.end_offset(topic, partition) - start
        if kept == 0:
            return 0
        reader = Reader(self._cluster, topic, partition)
        try:
            batches = reader.read(start, _SAMPLE_BYTES)
        finally:
            reader.close()
        sampled = sum(batch.values.nbytes + len(batch.values) for batch in batches)
        covered = max(1, batches[-1].next_offset - start) if batches else 1
        return max(1, sampled * kept // covered)

    def trim(self, topic: str, partition: int, before: int) -> int:
        """Delete messages before offset `before`; the new start offset."""
        start = self.start_offset(topic, partition)
        before = min(before, self.end_offset(topic, partition))
        return self._cluster.trim(topic, partition, before) if before > start else start

    def put(self, topic: str, key: str, value: str) -> None:
        """Write to a compacted topic, made if there is none."""
        if Topic.parse(topic) is not None:
            raise Refused("this is a topic of records", place=f"topic {topic}")
        self._cluster.create(topic, 1, _COMPACTED)
        self._sender.send([Parcel(topic, 0, [value.encode()], [key.encode()])])

    def latest(self, topic: str) -> Mapping[str, str]:
        """The latest value of each key of a compacted topic."""
        if not self._cluster.partitions(topic):
            return {}
        with self._lock:
            if topic not in self._latest:
                self._latest[topic] = Latest(self._cluster, topic)
        return self._latest[topic].values()

    def join(self, group: str) -> KafkaMembership:
        """Take part in a consumer group of this name."""
        return KafkaMembership(self._cluster, group)

    def rest(self) -> None:
        """Have no client fetch ahead any more: each holds what came since, up to its bound."""
        with self._lock:
            readers = list(self._readers.values())
        for reader in readers:
            with reader.lock:
                reader.rest()

    def close(self) -> None:
        """Let go of every connection."""
        self._sender.close()
        with self._lock:
            while self._readers:
                _close(self._readers.popitem()[1])
            while self._latest:
                self._latest.popitem()[1].close()

    def _reader(self, topic: str, partition: int) -> Reader:
        with self._lock:
            reader = self._readers.pop((topic, partition), None)
            reader = reader or Reader(self._cluster, topic, partition)
            reader.used_at = time.monotonic()
            self._readers[topic, partition] = reader
            # One that nobody reads any more, as another writer has its partition, would fetch ahead
            # all that its memory may hold, and keep that.
            while len(self._readers) > _READERS or self._oldest_is_idle():
                _close(self._readers.popitem(last=False)[1])
            return reader

    def _oldest_is_idle(self) -> bool:
        oldest = next(iter(self._readers.values()))
        idle = time.monotonic() - oldest.used_at > IDLE_SECONDS
        return idle and not oldest.lock.locked()


def _close(reader: Reader) -> None:
    with reader.lock:
        reader.close()


def _to_parcel(append: Append) -> Parcel:
    values = append.values
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        raise BadInput("messages must be binary", found=str(values.type))
    if values.null_count:
        raise BadInput("a message cannot be null", found=f"{values.null_count} nulls")
    if append.schema_id != NOT_WIRE_FORMAT:
        values = to_wire(values, append.schema_id)
    return Parcel(append.topic, append.partition, values.to_pylist(), _to_keys(append.keys))


def _to_keys(keys: pa.Array | None) -> list[bytes | None]:
    if keys is None:
        return []
    if pa.types.is_dictionary(keys.type):
        each = pc.cast(keys.dictionary, pa.binary()).to_pylist()
        return [each[code] for code in keys.indices.to_pylist()]
    return pc.cast(keys, pa.binary()).to_pylist()
