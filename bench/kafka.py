"""On a real Kafka, the broker on the same cores: rates, freshness, take-over; and sizes."""

import io
import json
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

import fastavro
import numpy as np
import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Producer as ConfluentProducer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from servers.install import place
from tests.servers.kafka import BrokerOptions, Kafka
from tests.servers.registry import Registry

from bench.freshness import show_freshness
from bench.home import folder, k2
from bench.report import console, show
from bench.sink import Sink
from k2.feeds import open_feed
from k2.lake import open_lake
from k2.log import Producer, open_log, open_registry
from k2.log.kafka.collector import held_off
from k2.model import Topic, encode, latest, versions

_CHUNK: Final = 65_536
_WIRE_BYTES: Final = 5
_LIVE: Final = "market.crypto.trades.simulated"
_BARE: Final = "bare"
_TWIN: Final = "twin"
_TUNED: Final = {
    "queued.min.messages": 1_000_000,
    "fetch.message.max.bytes": 4 << 20,
    "fetch.queue.backoff.ms": 5,
}
"""What makes the bare consumer a fast one: K2's own choice."""


@dataclass(frozen=True)
class Stores:
    """A home whose log is a broker's, and its registry a server's."""

    home: Path
    broker: Kafka
    registry: Registry

    @property
    def environment(self) -> dict[str, str]:
        """What tells a process of K2 so."""
        return {
            "K2_LOG": f"kafka:{self.broker.bootstrap}",
            "K2_REGISTRY": f"confluent:{self.registry.url}",
            "K2_LOG_PARTITIONS": "2",
        }


@contextmanager
def stores() -> Iterator[Stores]:
    """A broker of its own, and an empty home."""
    with folder("kafka") as home:
        # Given what a broker on a machine of its own would have: it is not what is measured.
        broker, registry = (
            Kafka(home / "broker", BrokerOptions(heap="1g")),
            Registry(home / "schemas"),
        )
        try:
            broker.start()
            registry.start()
            yield Stores(home, broker, registry)
        finally:
            registry.stop()
            broker.stop()


def run(*, quick: bool = False) -> None:
    """Print rates beside those of the bare client, then milliseconds, seconds and bytes."""
    if not place("kafka").is_dir():
        console.print("Kafka is not installed: `make servers` installs it")
        return
    with stores() as at:
        _throughput(at, 2 if quick else 48)
    with stores() as at:
        show_freshness(at.home, 20 if quick else 300, at.environment)
    with stores() as at:
        _take_over(at, 2 if quick else 10)
    _sizes()


def _now() -> datetime:
    return datetime.now(UTC)


def _throughput(at: Stores, chunks: int) -> None:
    """Producing and committing the same trades; each beside what the client does with bytes."""
    log, registry = open_log(at.environment["K2_LOG"]), open_registry(at.environment["K2_REGISTRY"])
    url = f"simulator:?rate=max&kinds=trades&symbols=50&chunk={_CHUNK}"
    feed = open_feed(url, None, _now)
    (exchange,) = feed.exchanges
    topic = str(Topic(exchange.asset_class, "trades", exchange.name))
    producer = Producer(log, registry, 1)
    tables = [feed.read()[0].table for _ in range(chunks)]
    sent = [_rate(partial(producer.send, exchange, "trades", table)) for table in tables]
    admin = AdminClient({"bootstrap.servers": at.broker.bootstrap})
    # The last is where the parts of the sink talk to each other.
    wanted = [NewTopic(name, 1) for name in (_BARE, _TWIN, "control-iceberg")]
    for made in admin.create_topics(wanted).values():
        made.result()
    log.close()
    registry.close()
    values = encode(tables[0], latest("trades")).to_pylist()
    bare = [_produce_bare(at, _BARE, values) for _ in range(min(chunks, 8))]
    _beside(
        "Feed to Kafka: acks=all, idempotent, lz4",
        ("the bare client, bytes that are ready", float(np.median(bare))),
        ("K2: columns to acknowledged records", float(np.median(sent))),
    )
    count = chunks * _CHUNK
    polled = _poll_bare(at, topic, count)
    with held_off():
        tuned = _poll_bare(at, topic, count, _TUNED)
    began = time.monotonic()
    with k2(at.home, "ingest", "--until-caught-up", environment=at.environment) as writer:
        assert writer.wait() == 0
    committed = count / (time.monotonic() - began)
    others = [
        ("the same, its queue tuned and no garbage collected", tuned),
        ("K2: read, decoded, decided, committed", committed),
    ]
    if place("sink").is_dir():
        others.append(
            ("Iceberg's sink for Connect, from its first commit on", _sunk(at, tables[0], chunks))
        )
    else:
        console.print("Iceberg's sink is not installed: `python servers/install.py sink` does it")
    _beside(
        f"Kafka to rows: {count:,} records, K2 with the start of its process",
        ("the bare consumer, polls alone", polled),
        *others,
    )


def _sunk(at: Stores, table: pa.Table, chunks: int) -> float:
    """Rows a second of the sink, over as many trades, those of `table` again and again."""
    registry = open_registry(at.environment["K2_REGISTRY"])
    # Its converter cannot read decimals in named fixed types; in bytes it can.
    avro = json.loads(json.dumps(latest("trades").avro))
    for field in avro["fields"]:
        if field["name"] in ("price", "quantity"):
            field["type"] = {"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 8}
    header = struct.pack(">bI", 0, registry.register(f"{_TWIN}-value", avro))
    registry.close()
    schema, values = fastavro.parse_schema(avro), []
    for row in table.to_pylist():
        datum = io.BytesIO()
        fastavro.schemaless_writer(datum, schema, row)
        values.append(header + datum.getvalue())
    for _ in range(chunks):
        _produce_bare(at, _TWIN, values)
    sink = Sink(
        at.home / "sink",
        bootstrap=at.broker.bootstrap,
        registry_port=at.registry.port,
        topic=_TWIN,
    )
    try:
        sink.start()
        return sink.steady_rate(chunks * len(values))
    finally:
        sink.kill()  # asked to stop, it may hang for ever


def _beside(title: str, baseline: tuple[str, float], *others: tuple[str, float]) -> None:
    rows = [[name, f"{rate:,.0f}", rate / baseline[1]] for name, rate in (baseline, *others)]
    show(title, ["", "records/s", "ratio"], rows)


def _rate(send: Callable[[], object]) -> float:
    began = time.perf_counter()
    send()
    return _CHUNK / (time.perf_counter() - began)


def _produce_bare(at: Stores, topic: str, values: list[bytes]) -> float:
    producer = ConfluentProducer(
        {
            "bootstrap.servers": at.broker.bootstrap,
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 2 * _CHUNK,
            "log_level": 0,
        }
    )
    began = time.perf_counter()
    for start in range(0, len(values), 10_000):
        messages = [{"value": value} for value in values[start : start + 10_000]]
        producer.produce_batch(topic, messages, partition=0)
    producer.flush()
    return len(values) / (time.perf_counter() - began)


def _poll_bare(at: Stores, topic: str, count: int, more: Mapping[str, int] | None = None) -> float:
    consumer = Consumer(
        {
            "bootstrap.servers": at.broker.bootstrap,
            "group.id": "bare",
            "enable.auto.commit": False,
            "queued.max.messages.kbytes": 64 << 10,
            "log_level": 0,
            **(more or {}),
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    began, read = time.perf_counter(), 0
    while read < count:
        read += len(consumer.consume(10_000, 1.0))
    took = time.perf_counter() - began
    consumer.close()
    return count / took


def _take_over(at: Stores, times: int) -> None:
    """Kill one of two writers again and again: when is what was appended by then committed?"""
    lake = open_lake(at.home / "lake")
    table = lake.table("trades")
    log = open_log(at.environment["K2_LOG"])
    took: list[float] = []
    with ExitStack() as stack:
        start = partial(k2, at.home, environment=at.environment)
        stack.enter_context(start("feed", "simulator:?rate=2000&kinds=trades"))
        writers = [stack.enter_context(start("ingest")) for _ in range(2)]
        time.sleep(8)
        for number in range(times):
            victim = number % 2
            writers[victim].kill()
            writers[victim].wait()
            began = time.monotonic()
            ends = {p: log.end_offset(_LIVE, p) for p in range(2)}
            while any(
                table.snapshot().offsets[_LIVE].next_offset.get(p, 0) < end
                for p, end in ends.items()
            ):
                time.sleep(0.02)
            took.append(time.monotonic() - began)
            writers[victim] = stack.enter_context(start("ingest"))
            time.sleep(8)
    log.close()
    lake.close()
    p50, most = np.percentile(took, [50, 100])
    show(
        f"Take-over after SIGKILL of one of two writers, {times} times",
        ["", "p50 s", "most s"],
        [["until all that was appended by then is committed", float(p50), float(most)]],
    )


def _sizes() -> None:
    feed = open_feed("simulator:?rate=max&kinds=trades&chunk=10000", None, _now)
    table = feed.read()[0].table
    rows: list[list[object]] = []
    for schema in versions("trades"):
        size = encode(table, schema).nbytes / table.num_rows - 4  # less Arrow's own offsets
        rows.append([f"Avro V{schema.version}", float(size)])
    rows.append(["V2 on the wire, before compression", float(size) + _WIRE_BYTES])
    columns = table.to_pylist()
    as_json = sum(len(json.dumps(row, default=str, separators=(",", ":"))) for row in columns)
    rows.append(["V2 as JSON", as_json / len(columns)])
    show("A simulated trade", ["", "bytes"], rows)
