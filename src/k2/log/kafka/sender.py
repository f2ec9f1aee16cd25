"""Messages to the brokers: in order, each acknowledged by all replicas, none silently dropped.

The client retries by itself, and the brokers recognise what was retried (idempotence). Memory is
bounded: whoever appends waits while too much is under way.
"""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from k2.errors import Unavailable
from k2.log.kafka.cluster import Cluster
from k2.log.kafka.collector import held_off
from k2.log.kafka.errors import cause, is_final, translate

_CHUNK_MESSAGES: Final = 10_000
_CHUNK_BYTES: Final = 8 << 20
_MESSAGES_UNDER_WAY: Final = 200_000
_BYTES_UNDER_WAY: Final = 128 << 20
_POLL_SECONDS: Final = 0.05
_GRACE_SECONDS: Final = 2.0

_KEPT_BY_CLIENT: Final = 1_000_000
"""The client's own bounds lie above ours: one that it meets in the middle breaks the order."""


@dataclass(frozen=True)
class Parcel:
    """Messages for one partition, in order; `keys` is empty or has one a message."""

    topic: str
    partition: int
    values: Sequence[bytes]
    keys: Sequence[bytes | None]


@dataclass
class _Delivery:
    """What the brokers said so far of one parcel."""

    parcel: Parcel
    offsets: list[int] = field(default_factory=list)
    failures: list[KafkaError] = field(default_factory=list)

    def told(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self.offsets.append(message.offset() or 0)
        else:
            self.failures.append(error)


class Sender:
    """Appends parcels, one call at a time. Any thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._turn = threading.Lock()
        self._producer: Producer | None = None

    def send(self, parcels: Sequence[Parcel]) -> list[npt.NDArray[np.int64]]:
        """The offset of each message of each parcel, once all are durable.

        Raises `Unavailable` or `Refused` if any was not; some may be there all the same.
        """
        with self._turn:
            began = time.monotonic()
            producer = self._open()
            deliveries = [_Delivery(parcel) for parcel in parcels]
            try:
                for delivery in deliveries:
                    self._enqueue(producer, delivery, began)
                self._poll(producer, 0, began)
                for delivery in deliveries:
                    self._check(delivery, began)
            except BaseException:
                # What is still under way must not come after what the caller sends next.
                self._discard()
                raise
            return [np.array(delivery.offsets, np.int64) for delivery in deliveries]

    def _open(self) -> Producer:
        if self._producer is None:
            settings = self._cluster.settings(
                enable_idempotence=True,
                acks="all",
                compression_type=self._cluster.place.compression,
                linger_ms=1,
                batch_size=1_000_000,
                batch_num_messages=100_000,
                message_max_bytes=1_000_000_000,
                queue_buffering_max_messages=_KEPT_BY_CLIENT,
                queue_buffering_max_kbytes=1 << 20,
                message_timeout_ms=int(self._cluster.place.timeout * 1000),
            )
            try:
                self._producer = Producer(settings)
            except KafkaException as error:
                raise translate(cause(error), str(self._cluster.place)) from error
        return self._producer

    def _enqueue(self, producer: Producer, delivery: _Delivery, began: float) -> None:
        parcel = delivery.parcel
        start, count = 0, len(parcel.values)
        while start < count:
            stop = _cut(parcel.values, start)
            with held_off():
                messages = _to_messages(parcel, start, stop)
                taken = producer.produce_batch(
                    self._cluster.physical(parcel.topic),
                    messages,
                    partition=parcel.partition,
                    on_delivery=delivery.told,
                )
            if taken != stop - start:
                refused = next(m["_error"] for m in messages if "_error" in m)
                if taken or not self._learns(producer, parcel, refused, began):
                    raise translate(refused, _place(parcel))
                continue
            start = stop
            self._poll(producer, _MESSAGES_UNDER_WAY, began)

    def _learns(
        self, producer: Producer, parcel: Parcel, refused: KafkaError, began: float
    ) -> bool:
        """Whether the client knows less than the cluster, such as of a partition that was added,
        and has asked for it now.
        """
        late = time.monotonic() - began > self._cluster.place.timeout
        if refused.code() not in (KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC) or late:
            return False
        time.sleep(_POLL_SECONDS)
        with suppress(KafkaException):
            producer.list_topics(self._cluster.physical(parcel.topic), timeout=_GRACE_SECONDS)
        return True

    def _poll(self, producer: Producer, allowed: int, began: float) -> None:
        """Hear the brokers until at most `allowed` messages are under way."""
        patience = self._cluster.place.timeout + _GRACE_SECONDS
        heard = time.monotonic()
        producer.poll(0)
        while (under_way := len(producer)) > allowed:
            if producer.poll(_POLL_SECONDS):
                heard = time.monotonic()
            reason = self._cluster.reason(began)
            final = reason is not None and is_final(reason)
            if final or (len(producer) == under_way and time.monotonic() - heard > patience):
                timed_out = KafkaError(KafkaError._TIMED_OUT)
                raise translate(timed_out, str(self._cluster.place), reason)

    def _check(self, delivery: _Delivery, began: float) -> None:
        place = _place(delivery.parcel)
        if delivery.failures:
            reason = self._cluster.reason(began)
            raise translate(delivery.failures[0], place, reason)
        if (
            len(delivery.offsets) != len(delivery.parcel.values)
            or min(delivery.offsets, default=0) < 0
        ):
            # After a lost answer the broker may know that it has a message, and not where.
            raise Unavailable("the broker did not say where the messages are", place=place)

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(_GRACE_SECONDS)

    def close(self) -> None:
        """Let go of the connections; nothing is under way, since `send` waits."""
        with self._turn:
            self._discard()


def _cut(values: Sequence[bytes], start: int) -> int:
    """Where a chunk that begins at `start` ends: after some messages, or bytes."""
    stop = min(start + _CHUNK_MESSAGES, len(values))
    if sum(map(len, values[start:stop])) <= _CHUNK_BYTES:
        return stop
    size = 0
    for index in range(start, stop):
        size += len(values[index])
        if size > _CHUNK_BYTES:
            return max(index, start + 1)
    return stop


def _to_messages(parcel: Parcel, start: int, stop: int) -> list[dict[str, Any]]:
    values = parcel.values[start:stop]
    if not parcel.keys:
        return [{"value": value} for value in values]
    keys = parcel.keys[start:stop]
    return [{"value": value, "key": key} for value, key in zip(values, keys, strict=True)]


def _place(parcel: Parcel) -> str:
    return f"topic {parcel.topic}, partition {parcel.partition}"
