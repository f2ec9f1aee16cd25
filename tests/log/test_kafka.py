"""What the log on Kafka keeps beyond the contract, against a real broker."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from k2.errors import BadInput, K2Error, NotFound, Refused, Unavailable
from k2.log import NOT_WIRE_FORMAT, Access, Append, Log, open_log
from k2.log.kafka.cluster import Cluster, Place, to_place
from k2.log.kafka.errors import translate
from k2.log.kafka.log import KafkaLog
from tests.servers.certificates import Certificates
from tests.servers.kafka import Kafka, secured

T = "market.crypto.trades.t"
QUIET = {"log_level": 0}


def messages(*values: bytes) -> pa.BinaryArray:
    return pa.array(values, pa.binary())


@pytest.fixture
def prefix() -> str:
    return f"{uuid4().hex}."


@pytest.fixture
def log(kafka: Kafka, prefix: str) -> Iterator[Log]:
    with closing(open_log(f"kafka:{kafka.bootstrap}?prefix={prefix}")) as opened:
        opened.create(T, 1)
        yield opened


def wait_for_end(log: Log, offset: int) -> None:
    end = time.monotonic() + 20
    while log.end_offset(T, 0) != offset:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_messages_are_confluents_wire_format_by_symbol(kafka: Kafka, log: Log, prefix: str) -> None:
    keys = pa.array(["BTC", "ß", "BTC"]).dictionary_encode()
    log.append([Append(T, 0, 258, messages(b"one", b"", b"three"), keys)])
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "stranger", **QUIET})
    consumer.assign([TopicPartition(prefix + T, 0, 0)])
    found = [(message.key(), message.value()) for message in consumer.consume(3, 20)]
    consumer.close()
    header = b"\0\0\0\1\2"
    assert found == [
        (b"BTC", header + b"one"),
        ("ß".encode(), header),
        (b"BTC", header + b"three"),
    ]


def test_what_strangers_wrote_is_kept_whole(kafka: Kafka, log: Log, prefix: str) -> None:
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **QUIET})
    for value in (b"{}", b"\0\0\0\0\7datum", None):
        producer.produce(prefix + T, value, partition=0)
    producer.flush()
    (batch,) = log.read(T, 0, 0, 1000)
    assert batch.values.to_pylist() == [b"{}", b"datum", b""]
    assert batch.schema_ids.tolist() == [NOT_WIRE_FORMAT, 7, NOT_WIRE_FORMAT]


def test_transactions_that_are_open_or_aborted_are_not_read(
    kafka: Kafka, log: Log, prefix: str
) -> None:
    log.append([Append(T, 0, 1, messages(b"before"))])
    settings = {"bootstrap.servers": kafka.bootstrap, "transactional.id": prefix, **QUIET}
    producer = Producer(settings)
    producer.init_transactions()
    producer.begin_transaction()
    for value in (b"\0\0\0\0\1aborted", b"\0\0\0\0\1too"):
        producer.produce(prefix + T, value, partition=0)
    producer.flush()
    assert log.end_offset(T, 0) == 1  # as long as nobody knows how it ends
    producer.abort_transaction()
    wait_for_end(log, 4)  # with the broker's own mark, which it writes after it has answered
    assert [batch.next_offset for batch in log.read(T, 0, 0, 1000)] == [1]
    (jump,) = log.read(T, 0, 1, 1000)
    assert (len(jump.values), jump.next_offset) == (0, 4)
    assert log.read(T, 0, 4, 1000) == []
    producer.begin_transaction()
    producer.produce(prefix + T, b"\0\0\0\0\1kept", partition=0)
    producer.commit_transaction()
    wait_for_end(log, 6)
    (batch,) = log.read(T, 0, 2, 1000)
    assert (batch.offsets.tolist(), batch.values.to_pylist()) == ([4], [b"kept"])


def test_others_messages_between_show_in_the_offsets(kafka: Kafka, log: Log, prefix: str) -> None:
    log.append([Append(T, 0, 1, messages(b"mine"))])
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **QUIET})
    producer.produce(prefix + T, b"theirs", partition=0)
    producer.flush()
    (offsets,) = log.append([Append(T, 0, 1, messages(b"mine", b"mine"))])
    assert offsets.tolist() == [2, 3]


def test_a_partition_that_nobody_reads_is_not_read_ahead(
    kafka: Kafka, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(KafkaLog(Cluster(to_place(f"{kafka.bootstrap}?prefix={prefix}"), None))) as log:
        log.create(T, 2)
        for partition in (0, 1):
            log.append([Append(T, partition, 1, messages(*[b"x" * 100] * 1_000))])
        (first,) = log.read(T, 0, 0, 2_000)
        log.read(T, 1, 0, 2_000)
        assert log._readers.keys() == {(T, 0), (T, 1)}
        monkeypatch.setattr("k2.log.kafka.log.IDLE_SECONDS", 0.2)
        time.sleep(0.3)
        (second,) = log.read(T, 0, first.next_offset, 2_000)
        assert log._readers.keys() == {(T, 0)}
        assert second.offsets[0] == first.next_offset
        # Whoever comes back to the other one finds all of it.
        (whole,) = log.read(T, 1, 0, 1 << 20)
        assert whole.offsets.tolist() == list(range(1_000))


def test_a_partition_that_was_added_is_appended_to(kafka: Kafka, log: Log, prefix: str) -> None:
    log.append([Append(T, 0, 1, messages(b"first"))])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET})
    admin.create_partitions([NewPartitions(prefix + T, 2)])[prefix + T].result(20)
    (offsets,) = log.append([Append(T, 1, 1, messages(b"second"))])
    assert offsets.tolist() == [0]


def test_a_topic_made_anew_has_another_identity_and_none_of_its_messages(
    kafka: Kafka, log: Log, prefix: str
) -> None:
    log.append([Append(T, 0, 1, messages(b"old"))])
    log.read(T, 0, 0, 1000)
    before = log.identity(T)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap, **QUIET})
    admin.delete_topics([prefix + T])[prefix + T].result(20)
    time.sleep(1.1)  # what is known of topics may be a second old
    with pytest.raises(NotFound):
        log.end_offset(T, 0)
    log.create(T, 1)
    assert log.identity(T) != before
    log.append([Append(T, 0, 1, messages(b"new"))])
    assert [batch.values.to_pylist() for batch in log.read(T, 0, 0, 1000)] == [[b"new"]]


@pytest.mark.slow
def test_a_broker_that_is_away_is_told_in_bounded_time(make_kafka: Callable[..., Kafka]) -> None:
    broker = make_kafka()
    with closing(open_log(f"kafka:{broker.bootstrap}?timeout=3")) as log:
        log.create(T, 1)
        log.append([Append(T, 0, 1, messages(b"before"))])
        broker.kill()
        for ask in (
            lambda: log.append([Append(T, 0, 1, messages(b"lost"))]),
            lambda: log.end_offset(T, 0),
            lambda: log.put("k2.positions", "feed", "1"),
        ):
            began = time.monotonic()
            with pytest.raises(Unavailable, match="Kafka is away"):
                ask()
            assert time.monotonic() - began < 10
        broker.start()
        end = time.monotonic() + 30
        while True:
            try:
                log.append([Append(T, 0, 1, messages(b"after"))])
                break
            except Unavailable:
                assert time.monotonic() < end
        values = [v for batch in log.read(T, 0, 0, 1000) for v in batch.values.to_pylist()]
        assert (values[0], values[-1]) == (b"before", b"after")


@pytest.mark.slow
def test_who_leads_is_asked_anew_once_a_broker_is_back(make_kafka: Callable[..., Kafka]) -> None:
    broker = make_kafka()
    with closing(open_log(f"kafka:{broker.bootstrap}?timeout=40")) as log:
        log.create(T, 1)
        log.append([Append(T, 0, 1, messages(b"before"))])
        assert log.end_offset(T, 0) == 1
        broker.kill()
        broker.start(wait=False)
        # Its partitions have a new leader epoch, which the client learns by asking alone.
        assert log.end_offset(T, 0) == 1
        broker.wait()


@pytest.mark.slow
def test_a_topic_made_anew_is_read_though_its_leader_epochs_begin_again(
    make_kafka: Callable[..., Kafka],
) -> None:
    broker = make_kafka()
    place = f"kafka:{broker.bootstrap}?timeout=40"
    with closing(open_log(place)) as log, closing(open_log(place)) as other:
        log.create(T, 1)
        log.append([Append(T, 0, 1, messages(b"old"))])
        broker.kill()
        broker.start()
        (batch,) = log.read(T, 0, 0, 1000)
        assert batch.values.to_pylist() == [b"old"]
        admin = AdminClient({"bootstrap.servers": broker.bootstrap, **QUIET})
        admin.delete_topics([T])[T].result(20)
        time.sleep(1.1)  # what is known of topics may be a second old
        other.create(T, 1)
        other.append([Append(T, 0, 1, messages(b"new"))])
        began = time.monotonic()
        (batch,) = log.read(T, 0, 0, 1000)
        assert batch.values.to_pylist() == [b"new"]
        assert time.monotonic() - began < 20


@pytest.mark.slow
def test_who_signs_in_and_whom_to_trust(
    make_kafka: Callable[..., Kafka], certificates: Certificates
) -> None:
    broker = make_kafka(secured(certificates, {"alice": "alice-secret"}))
    place = f"kafka:{broker.address('SASL_SSL')}?timeout=5"

    def used(url: str, access: Access) -> None:
        with closing(open_log(url, access)) as log:
            log.create(T, 1)
            log.append([Append(T, 0, 1, messages(b"x"))])
            assert len(log.read(T, 0, 0, 1)) == 1

    used(place, Access("alice", "alice-secret", ca=certificates.ca))
    used(f"{place}&mechanism=PLAIN", Access("alice", "alice-secret", ca=certificates.ca))
    mutual = Access(
        ca=certificates.ca, certificate=certificates.client, key=certificates.client_key
    )
    used(f"kafka:{broker.address('SSL')}", mutual)
    for access, words in (
        (Access("alice", "wrong", ca=certificates.ca), "refuses the name or the password"),
        (Access("alice", "alice-secret", ca=certificates.stranger), "no trusted connection"),
        (Access("alice", "alice-secret", tls=True), "no trusted connection"),
    ):
        began = time.monotonic()
        with pytest.raises(Refused, match=words) as caught:
            used(place, access)
        assert "\n" not in str(caught.value)
        assert "alice-secret" not in str(caught.value)
        assert time.monotonic() - began < 5
    with pytest.raises(Unavailable, match=r"resolve.*nowhere\.invalid"):
        used("kafka:nowhere.invalid:9092?timeout=3", Access())
    with pytest.raises(BadInput, match="no such file"):
        used(place, Access(ca=Path("/nowhere.pem")))


def test_every_error_of_the_client_has_its_own_of_k2() -> None:
    codes = {
        value
        for name in dir(KafkaError)
        if name.lstrip("_").isupper() and isinstance(value := getattr(KafkaError, name), int)
    }
    assert len(codes) > 150
    for code in codes:
        found = translate(KafkaError(code), "here")
        assert type(found) is not K2Error
        assert found.place == "here"


def test_a_broker_that_is_not_ready_to_hold_topics_is_away() -> None:
    code = KafkaError.INVALID_REPLICATION_FACTOR
    said = "Unable to replicate the partition 1 time(s): All brokers are currently fenced."
    assert isinstance(translate(KafkaError(code, said), "here"), Unavailable)
    said = "Unable to replicate the partition 3 time(s): only 1 broker(s) are registered."
    assert isinstance(translate(KafkaError(code, said), "here"), Refused)


def test_a_place_is_read_from_its_url() -> None:
    assert to_place("a:1,b:2?replication=3&compression=zstd&prefix=x.&timeout=2.5") == Place(
        "a:1,b:2", replication=3, compression="zstd", prefix="x.", timeout=2.5
    )
    assert to_place("//a:1/") == Place("a:1")


@pytest.mark.parametrize(
    "rest",
    ["", "host", "host:port", "a:1,", "a:1?colour=red", "a:1?replication=0", "a:1?compression=rar",
     "a:1?prefix=a b", "a:1?timeout=never", "a:1?mechanism=MD5"],
)  # fmt: skip
def test_a_place_that_cannot_be(rest: str) -> None:
    with pytest.raises(BadInput):
        to_place(rest)
