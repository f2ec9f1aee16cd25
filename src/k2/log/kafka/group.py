"""A place in a consumer group, which only says whose partition is whose: nothing is ever read."""

import re
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Final

from confluent_kafka import OFFSET_END, Consumer, KafkaException, TopicPartition

from k2.errors import NotFound, Unavailable
from k2.log.kafka.cluster import Cluster
from k2.log.kafka.errors import cause, translate
from k2.model import Topic

_SILENCE_MS: Final = 6_000
"""A member that was not heard of for so long is out: the least that brokers allow by default."""

_LEAVE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.05

_LOOK_MS: Final = 1_000
"""How often new topics and partitions are looked for."""


class KafkaMembership:
    """`k2.log.port.Membership` by Kafka's own group protocol."""

    def __init__(self, cluster: Cluster, group: str) -> None:
        self._cluster = cluster
        self._mine: set[tuple[str, int]] = set()
        settings = cluster.settings(
            group_id=cluster.physical(group),
            enable_auto_commit=False,
            auto_offset_reset="latest",
            # Whoever joins or leaves disturbs only the partitions that move.
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=_SILENCE_MS,
            heartbeat_interval_ms=1_000,
            max_poll_interval_ms=_SILENCE_MS,
            topic_metadata_refresh_interval_ms=_LOOK_MS,
            queued_max_messages_kbytes=1,
        )
        self._place = f"group {group}"
        try:
            self._consumer: Consumer = Consumer(settings)
            self._consumer.subscribe(
                ["^" + re.escape(cluster.physical("market.")) + ".*"],
                on_assign=self._gained,
                on_revoke=self._gave,
                on_lost=self._gave,
            )
        except KafkaException as error:
            raise translate(cause(error), self._place) from error

    def partitions(self) -> Mapping[str, frozenset[int]]:
        """The partitions that are this member's, as the group last agreed."""
        event = self._consumer.poll(0)
        error = event.error() if event is not None else None
        if error is not None:
            found = translate(error, self._place)
            # Having no topic yet, or no broker now, mends itself: the client joins again.
            if not isinstance(found, NotFound | Unavailable):
                raise found
        topics = {topic for topic, _ in self._mine}
        return {
            topic: frozenset(number for name, number in self._mine if name == topic)
            for topic in sorted(topics)
            if Topic.parse(topic) is not None
        }

    def leave(self) -> None:
        """Give the partitions back at once."""
        # Here and not in `close`: there the client may wait for ever for its own answer to this.
        self._consumer.unsubscribe()
        patience = time.monotonic() + _LEAVE_SECONDS
        while self._mine and time.monotonic() < patience:
            self._consumer.poll(_POLL_SECONDS)
        self._mine.clear()
        # If it does all the same, the group hears no more of this member, which says as much.
        closing = threading.Thread(target=self._consumer.close, daemon=True)
        closing.start()
        closing.join(_SILENCE_MS / 1000)

    def _gained(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._mine |= self._places(partitions)
        # At their end and paused: a member fetches nothing.
        at_end = [TopicPartition(p.topic, p.partition, OFFSET_END) for p in partitions]
        consumer.incremental_assign(at_end)
        consumer.pause(at_end)

    def _gave(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._mine -= self._places(partitions)

    def _places(self, partitions: Iterable[TopicPartition]) -> set[tuple[str, int]]:
        prefix = self._cluster.place.prefix
        return {(each.topic.removeprefix(prefix), each.partition) for each in partitions}
