"""The broker of the tests itself: what it acknowledged is there after a kill."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers.kafka import Kafka

CLIENT = {"log_level": 0, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 200}


def create(bootstrap: str, topic: str, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, **CLIENT})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(30)


def produce(bootstrap: str, topic: str, value: bytes) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, **CLIENT})
    told = []
    producer.produce(topic, value, on_delivery=lambda error, _: told.append(error))
    assert producer.flush(30) == 0
    assert told == [None]


def consume(bootstrap: str, topic: str) -> list[bytes | None]:
    """All messages of the topic's only partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", **CLIENT})
    try:
        partition = TopicPartition(topic, 0, 0)
        _, end = consumer.get_watermark_offsets(partition, timeout=30)
        consumer.assign([partition])
        messages = consumer.consume(end, 30) if end else []
        assert not [each.error() for each in messages if each.error()]
        return [each.value() for each in messages]
    finally:
        consumer.close()


def test_a_broker_serves_clients(kafka: Kafka) -> None:
    create(kafka.bootstrap, "served")
    produce(kafka.bootstrap, "served", b"one")
    assert consume(kafka.bootstrap, "served") == [b"one"]


@pytest.mark.slow
def test_what_was_acknowledged_survives_a_kill(make_kafka: Callable[..., Kafka]) -> None:
    broker = make_kafka()
    create(broker.bootstrap, "kept")
    produce(broker.bootstrap, "kept", b"before")
    broker.kill()
    assert not broker.running
    broker.start()
    produce(broker.bootstrap, "kept", b"after")
    assert consume(broker.bootstrap, "kept") == [b"before", b"after"]


@pytest.mark.slow
def test_a_frozen_broker_answers_again_once_it_is_thawed(make_kafka: Callable[..., Kafka]) -> None:
    broker = make_kafka()
    create(broker.bootstrap, "frozen")
    broker.freeze()
    # Idempotent: what was sent again while nobody answered would stand there twice.
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "enable.idempotence": True, **CLIENT}
    )
    producer.produce("frozen", b"waits")
    assert producer.flush(1) == 1
    broker.thaw()
    assert producer.flush(30) == 0
    assert consume(broker.bootstrap, "frozen") == [b"waits"]
