"""A place in one partition, and the messages from there on.

The client fetches ahead in the background; reading on costs no question, reading elsewhere begins
anew. What is aborted, or only the broker's own marks, never comes: it is a jump of offsets.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from k2.errors import NotFound, Unavailable
from k2.log.kafka.cluster import Cluster
from k2.log.kafka.collector import held_off
from k2.log.kafka.errors import cause, is_final, is_gone, translate
from k2.log.reading import place_of

_PREFETCH_KBYTES: Final = 32 << 10
_FETCH_BYTES: Final = 4 << 20
_WAIT_SECONDS: Final = 0.2
_AGAIN_SECONDS: Final = 0.05
NOWHERE: Final = -1
"""The next offset of a cursor that has to be sent somewhere first."""


@dataclass(frozen=True)
class Taken:
    """Columns of messages in order: `keys` only where asked for, None where a message has none."""

    offsets: npt.NDArray[np.int64]
    keys: list[bytes | None]
    values: list[bytes | None]


class Cursor:
    """A place in one partition. One thread at a time."""

    def __init__(self, cluster: Cluster, topic: str, partition: int) -> None:
        self._cluster = cluster
        self._topic = topic
        self._partition = partition
        self._physical = cluster.physical(topic)
        self._place = f"topic {topic}, partition {partition}"
        self.next_offset = NOWHERE
        self._settings = cluster.settings(
            group_id="k2",  # the client insists on one; nothing is ever committed to it
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            enable_partition_eof=True,
            isolation_level="read_committed",
            auto_offset_reset="error",
            check_crcs=True,
            queued_max_messages_kbytes=_PREFETCH_KBYTES,
            queued_min_messages=1_000_000,
            fetch_message_max_bytes=_FETCH_BYTES,
            # How long a full queue is left alone: the client's own second starves a fast reader.
            fetch_queue_backoff_ms=5,
            fetch_error_backoff_ms=50,
            # Whoever reads elsewhere waits for the question that is under way at the end.
            fetch_wait_max_ms=100,
        )
        self._consumer = self._open()
        self._identity = ""

    def _open(self) -> Consumer:
        try:
            return Consumer(self._settings)
        except KafkaException as error:
            raise translate(cause(error), str(self._cluster.place)) from error

    def begin(self, offset: int, count: int, *, keys: bool = False) -> Taken | None:
        """Up to `count` messages from `offset` on, or a jump over none; None if the end is there.

        Raises `NotFound` outside of the log.
        """
        patience = time.monotonic() + self._cluster.place.timeout
        if offset == self.next_offset:
            taken = self.take(count, keys=keys)
            if self.next_offset not in (offset, NOWHERE):
                return taken
        while True:
            end = self._cluster.end(self._topic, self._partition)
            if offset == end:
                return None
            if offset != self.next_offset or not 0 <= offset < end:
                self._check(offset, end)
                self._look_whose_topic()
                self._consumer.assign([TopicPartition(self._physical, self._partition, offset)])
                self.next_offset = offset
            taken = self._wait_for(offset, count, keys, patience)
            if self.next_offset != NOWHERE:
                return taken
            time.sleep(_AGAIN_SECONDS)

    def _look_whose_topic(self) -> None:
        """Take another client where the topic was made anew: its leader epochs begin again, and to
        a client that knows the old ones they are news of long ago.
        """
        identity = self._cluster.identity(self._topic, fresh=True)
        if self._identity not in ("", identity):
            self._begin_anew()
        self._identity = identity

    def _check(self, offset: int, end: int) -> None:
        start = self._cluster.start(self._topic, self._partition)
        if not start <= offset <= end:
            raise NotFound(
                "the log does not hold this offset",
                place=place_of(self._topic, self._partition, offset),
                expected=f"{start} to {end}",
                hint="what lies before has been trimmed"
                if offset < start
                else "the log is shorter than whoever asks believes: was it made anew?",
            )

    def _wait_for(self, offset: int, count: int, keys: bool, patience: float) -> Taken:
        """Messages, or a jump, that are known to come; standing nowhere, if the client stopped."""
        began = time.monotonic()
        while True:
            taken = self.take(count, _WAIT_SECONDS, keys=keys)
            reason = self._cluster.reason(began)
            late = time.monotonic() > patience or (reason is not None and is_final(reason))
            if self.next_offset not in (offset, NOWHERE):
                return taken
            if late:
                self._begin_anew()
                raise translate(KafkaError(KafkaError._TIMED_OUT), self._place, reason)
            if reason is not None and is_gone(reason):
                self._begin_anew()
            if self.next_offset == NOWHERE:
                return taken

    def take(self, count: int, wait_seconds: float = 0.0, *, keys: bool = False) -> Taken:
        """Up to `count` messages that are here already, or come while waiting for the first."""
        first = self._consumer.consume(1, wait_seconds) if wait_seconds else []
        with held_off():
            found = first + self._consumer.consume(count, 0)
            if any(map(Message.error, found)):
                found = self._without_events(found)
            taken = Taken(
                _offsets(found),
                list(map(Message.key, found)) if keys else [],
                list(map(Message.value, found)),
            )
        if found:
            self.next_offset = max(self.next_offset, int(taken.offsets[-1]) + 1)
        return taken

    def _without_events(self, found: list[Message]) -> list[Message]:
        """The messages among what the client returned; the rest says where the end is, or fails."""
        for event in found:
            error = event.error()
            if error is None:
                continue
            if error.code() == KafkaError._PARTITION_EOF:
                # All before it was returned, or never held a message.
                self.next_offset = max(self.next_offset, event.offset() or 0)
                continue
            # The client stopped there, perhaps at a topic that was made anew meanwhile: what it
            # had is left, and another is sent there once the log was asked.
            self._begin_anew()
            failed = translate(error, self._place, self._cluster.reason(0.0))
            if not isinstance(failed, NotFound | Unavailable):
                raise failed
            return []
        return [message for message in found if message.error() is None]

    def _begin_anew(self) -> None:
        """With another client: one that was at a topic while it was deleted may never come back."""
        self._consumer.close()
        self._consumer = self._open()
        self.forget()

    def forget(self) -> None:
        """Stand nowhere: what was fetched ahead is of another topic of the same name."""
        self.next_offset = NOWHERE

    def rest(self) -> None:
        """Fetch nothing until reading begins again, somewhere; the connection stays."""
        self._consumer.unassign()
        self.forget()

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


def _offsets(messages: Sequence[Message]) -> npt.NDArray[np.int64]:
    """Asks each message only where offsets jump: they ascend, so first and last tell."""
    if not messages:
        return np.empty(0, np.int64)
    first, last = messages[0].offset(), messages[-1].offset()
    assert first is not None, "every message that was read has an offset"
    assert last is not None, "every message that was read has an offset"
    if last - first + 1 == len(messages):
        return np.arange(first, last + 1, dtype=np.int64)
    return np.array(list(map(Message.offset, messages)), np.int64)
