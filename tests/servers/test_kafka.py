"""The broker of the tests itself: what it acknowledged is there after a kill."""

from collections.abc import Callable

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers.certificates import Certificates
from tests.servers.kafka import BrokerOptions, Kafka, Listener, secured
from tests.servers.process import free_port
from tests.servers.toxiproxy import Toxiproxy

CLIENT = {"log_level": 0, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 200}


def create(bootstrap: str, topic: str, replicas: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap, **CLIENT})
    admin.create_topics([NewTopic(topic, 1, replicas)])[topic].result(30)


def produce(bootstrap: str, topic: str, value: bytes, **access: str) -> None:
    producer = Producer(
        {"bootstrap.servers": bootstrap, "enable.idempotence": True, **CLIENT}
        | {name.replace("_", "."): value for name, value in access.items()}
    )
    told = []
    producer.produce(topic, value, on_delivery=lambda error, _: told.append(error))
    assert producer.flush(30) == 0
    # An error of Kafka's cannot be compared with None.
    assert [str(error) for error in told] == ["None"]


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


@pytest.mark.slow
def test_a_broker_lets_in_whom_it_knows(
    make_kafka: Callable[..., Kafka], certificates: Certificates
) -> None:
    broker = make_kafka(secured(certificates, {"alice": "alice-secret"}))
    create(broker.bootstrap, "secret")
    alice = {"sasl_username": "alice", "sasl_password": "alice-secret"}
    trust = {"ssl_ca_location": str(certificates.ca)}
    for mechanism in ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"):
        for protocol in ("SASL_SSL", "SASL_PLAINTEXT"):
            produce(
                broker.address(protocol),
                "secret",
                f"{protocol} {mechanism}".encode(),
                security_protocol=protocol,
                sasl_mechanism=mechanism,
                **alice,
                **trust,
            )
    client = {
        "ssl_certificate_location": str(certificates.client),
        "ssl_key_location": str(certificates.client_key),
    }
    produce(broker.address("SSL"), "secret", b"mutual", security_protocol="SSL", **trust, **client)
    assert len(consume(broker.bootstrap, "secret")) == 7
    with pytest.raises(AssertionError):
        # Without a certificate of the client's own.
        produce(
            broker.address("SSL"),
            "secret",
            b"no",
            security_protocol="SSL",
            message_timeout_ms="3000",
            **trust,
        )


@pytest.mark.slow
def test_a_cluster_goes_on_without_one_of_three(
    make_cluster: Callable[..., list[Kafka]],
) -> None:
    brokers = make_cluster(3)
    every = ",".join(broker.bootstrap for broker in brokers)
    create(every, "replicated", replicas=3)
    produce(every, "replicated", b"by three")
    brokers[0].kill()
    produce(every, "replicated", b"by two")
    assert consume(every, "replicated") == [b"by three", b"by two"]
    brokers[0].start()


@pytest.mark.slow
def test_a_client_behind_a_cut_line_waits(
    make_kafka: Callable[..., Kafka], toxiproxy: Toxiproxy
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    broker = make_kafka(BrokerOptions(listeners={"PROXIED": Listener(advertised=listen)}))
    create(broker.bootstrap, "proxied")
    proxy = toxiproxy.route("proxied", broker.address("PROXIED"), listen)
    producer = Producer({"bootstrap.servers": listen, "enable.idempotence": True, **CLIENT})
    for number, (kind, attributes) in enumerate(
        [("latency", {"latency": 300}), ("timeout", {"timeout": 0})]
    ):
        with proxy.fault(kind, "downstream", **attributes):
            producer.produce("proxied", f"{number}".encode())
            producer.flush(1)
    proxy.cut()
    producer.produce("proxied", b"2")
    assert producer.flush(1) > 0
    proxy.mend()
    assert producer.flush(30) == 0
    assert consume(broker.bootstrap, "proxied") == [b"0", b"1", b"2"]
