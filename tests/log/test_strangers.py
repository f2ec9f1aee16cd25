"""Others at the same broker and registry: Confluent's own (de)serializers and K2 read each
other's messages."""

import json
from collections.abc import Iterator
from operator import itemgetter
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Producer as KafkaProducer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from k2.errors import NotFound
from k2.log import NOT_WIRE_FORMAT, Log, Producer, Registry, open_log, open_registry
from k2.log.wire import partition_of
from k2.model import Exchange, Topic, decode, latest, versions
from tests.log.test_producer import SYMBOLS, trades
from tests.servers.kafka import Kafka
from tests.servers.registry import Registry as RegistryServer


@pytest.fixture
def exchange() -> Exchange:
    """An exchange, and so a topic, that no other test uses."""
    return Exchange(f"x{uuid4().hex}", "crypto", "UTC")


@pytest.fixture
def topic(exchange: Exchange) -> Topic:
    return Topic("crypto", "trades", exchange.name)


@pytest.fixture
def log(kafka: Kafka) -> Iterator[Log]:
    opened = open_log(f"kafka:{kafka.bootstrap}")
    yield opened
    opened.close()


@pytest.fixture
def registry(registry_server: RegistryServer) -> Iterator[Registry]:
    opened = open_registry(f"confluent:{registry_server.url}")
    yield opened
    opened.close()


@pytest.fixture
def other(registry_server: RegistryServer) -> Iterator[SchemaRegistryClient]:
    """Somebody else at the same registry."""
    with SchemaRegistryClient({"url": registry_server.url}) as client:
        yield client


def records(symbols: list[str], exchange: Exchange) -> pa.Table:
    """A trade of this exchange for each symbol."""
    table = trades(symbols)
    column = pa.array([exchange.name] * len(symbols)).dictionary_encode()
    index = table.schema.get_field_index("exchange")
    field = table.schema.field("exchange")
    return table.set_column(index, field, column.cast(field.type))


def test_confluents_deserializer_reads_what_k2_wrote(
    kafka: Kafka,
    log: Log,
    registry: Registry,
    other: SchemaRegistryClient,
    exchange: Exchange,
    topic: Topic,
) -> None:
    table = records(SYMBOLS, exchange)
    sent = Producer(log, registry, 3).send(exchange, "trades", table)
    deserialize = AvroDeserializer(other)
    context = SerializationContext(str(topic), MessageField.VALUE)
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "g", "log_level": 0})
    try:
        consumer.assign([TopicPartition(str(topic), each.partition, 0) for each in sent])
        messages = consumer.consume(len(SYMBOLS), 30)
    finally:
        consumer.close()
    found: list[dict[str, Any]] = []
    for message in messages:
        record: Any = deserialize(message.value(), context)
        assert message.key() == record["symbol"].encode()
        assert message.partition() == partition_of(record["symbol"], 3)
        found.append(record)
    found.sort(key=lambda record: record["source_sequence"])
    assert found == table.to_pylist()


def test_k2_reads_what_confluents_serializer_wrote(
    kafka: Kafka,
    log: Log,
    registry: Registry,
    other: SchemaRegistryClient,
    exchange: Exchange,
    topic: Topic,
) -> None:
    """Both versions in one topic, as while producers are being upgraded."""
    table = records(SYMBOLS, exchange)
    rows = table.to_pylist()
    log.create(str(topic), 3)
    context = SerializationContext(str(topic), MessageField.VALUE)
    # The partitioner is Kafka's own, which librdkafka has but does not use by itself.
    producer = KafkaProducer(
        {"bootstrap.servers": kafka.bootstrap, "partitioner": "murmur2_random", "log_level": 0}
    )
    told: list[object] = []
    for number, version in enumerate(versions("trades")):
        names = version.arrow.names
        serialize = AvroSerializer(
            other,
            Schema(json.dumps(dict(version.avro)), "AVRO"),
            lambda row, _, names=names: {n: row[n] for n in names},
        )
        for row in rows[number::2]:
            producer.produce(
                str(topic),
                serialize(row, context),
                row["symbol"].encode(),
                on_delivery=lambda error, _: told.append(error),
            )
    assert producer.flush(30) == 0
    assert told == [None] * len(rows)

    assert [each.version for each in registry.versions(topic.subject)] == [1, 2]
    seen: set[int] = set()
    found: list[dict[str, Any]] = []
    for partition in range(3):
        for batch in log.read(str(topic), partition, 0, 1 << 20):
            for schema_id in np.unique(batch.schema_ids).tolist():
                seen.add(schema_id)
                datums = batch.values.filter(pa.array(batch.schema_ids == schema_id))
                decoded = decode(datums, registry.schema(schema_id), latest("trades"))
                assert decoded.errors == []
                found += decoded.table.to_pylist()
                symbols = decoded.table["symbol"].to_pylist()
                assert {partition_of(symbol, 3) for symbol in symbols} == {partition}
    assert len(seen) == 2
    old, new = versions("trades")
    lacking = {name: new.defaults[name] for name in new.arrow.names if name not in old.arrow.names}
    assert "source_sequence" in lacking
    expected = [row | (lacking if number % 2 == 0 else {}) for number, row in enumerate(rows)]
    by_symbol = itemgetter("symbol")
    assert sorted(found, key=by_symbol) == sorted(expected, key=by_symbol)


def test_messages_of_no_known_schema_come_whole(
    kafka: Kafka, log: Log, registry: Registry, topic: Topic
) -> None:
    unknown = b"\0" + (0x7FFFFFF0).to_bytes(4, "big") + b"datum"
    log.create(str(topic), 1)
    producer = KafkaProducer({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    for value in (unknown, b"no wire format", b""):
        producer.produce(str(topic), value, partition=0)
    assert producer.flush(30) == 0
    (batch,) = log.read(str(topic), 0, 0, 1 << 20)
    assert batch.values.to_pylist() == [b"datum", b"no wire format", b""]
    first, *others = batch.schema_ids.tolist()
    assert others == [NOT_WIRE_FORMAT] * 2
    with pytest.raises(NotFound):
        registry.schema(first)
