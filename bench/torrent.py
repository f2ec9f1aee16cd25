"""More records than a writer can take: ready messages of trades, ids and times of their own.

Only ids and times are written anew in the bytes of a template, so that the producer is no bound
for as long as possible: encoding all of it costs twice as much.
"""

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from confluent_kafka import Producer as Client

from k2.feeds import open_feed
from k2.ingest.tiers import BUILT_IN
from k2.log import Producer, open_log, open_registry
from k2.log.wire import partition_of, to_wire
from k2.model import Exchange, Topic, encode, latest

EXCHANGE: Final = Exchange("torrent", "crypto", "UTC")
TOPIC: Final = str(Topic("crypto", "trades", EXCHANGE.name))
PARTITIONS: Final = 2
FIRST_SHARE: Final = 0.05
"""Of the records, those of tier 1."""

_CHUNK: Final = 20_000
_TICKS: Final = 20
"""Sends a second where the rate is low, or in all where there are few records."""
_UNDER_WAY: Final = 200_000
_DIGITS: Final = 15
_FIRST_ID: Final = 10 ** (_DIGITS - 1)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_OTHERS: Final = 40

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]


def first_names(partition: int) -> list[str]:
    """Symbols of tier 1 whose records go to this partition."""
    names = BUILT_IN["*"]["tier_1"]
    return [name for name in names if partition_of(name, PARTITIONS) == partition][:2]


@dataclass(frozen=True)
class Template:
    """Messages in wire format, one behind the other, and where in them ids and times stand."""

    data: Bytes
    offsets: npt.NDArray[np.int32]
    ids: Ints
    times: Ints

    def values(self, count: int, first_id: int, now: datetime) -> list[bytes]:
        """The first `count` messages, with ids from `first_id` on, made and seen now."""
        end = int(self.offsets[count])
        data = self.data[:end].copy()
        numbers = first_id + np.arange(count)
        digits = numbers[:, None] // 10 ** np.arange(_DIGITS - 1, -1, -1) % 10 + ord("0")
        data[self.ids[:count, None] + np.arange(_DIGITS)] = digits
        at = self.times[:count].ravel()
        data[at[:, None] + np.arange(8)] = np.frombuffer(_varint(now), np.uint8)
        buffers = [None, pa.py_buffer(self.offsets[: count + 1].tobytes()), pa.py_buffer(data)]
        made: list[bytes] = pa.Array.from_buffers(pa.binary(), count, buffers).to_pylist()
        return made


def template(partition: int, schema_id: int, seed: int, first_share: float) -> Template:
    """Messages for one partition, `first_share` of them of symbols of tier 1."""
    url = f"simulator:?rate=max&kinds=trades&symbols=1&chunk={_CHUNK}&seed={seed}"
    ((records),) = open_feed(url, None, lambda: datetime.now(UTC)).read()
    table: pa.Table = records.table
    chance = np.random.default_rng((seed, partition))
    first = first_names(partition)
    others = (f"S{number}USDT" for number in range(10 * _OTHERS))
    rest = [name for name in others if partition_of(name, PARTITIONS) == partition][:_OTHERS]
    is_first = chance.random(_CHUNK) < first_share
    codes = np.where(
        is_first,
        chance.integers(0, len(first), _CHUNK),
        len(first) + chance.integers(0, len(rest), _CHUNK),
    )
    marked = "7" * _DIGITS
    when = datetime(2025, 7, 7, 7, 7, 7, 777_777, tzinfo=UTC)
    new = {
        "symbol": pa.array([[*first, *rest][code] for code in codes]),
        "exchange": pa.array([EXCHANGE.name] * _CHUNK),
        "trade_id": pa.array([marked] * _CHUNK),
        "timestamp": pa.array([when] * _CHUNK),
        "ingestion_timestamp": pa.array([when] * _CHUNK),
    }
    for name, column in new.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(
            at, table.schema.field(at), column.cast(table.schema.field(at).type)
        )
    messages = to_wire(encode(table, latest("trades")), schema_id).to_pylist()
    sizes = [len(message) for message in messages]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    id_text, time_bytes = marked.encode(), _varint(when)
    ids = [message.index(id_text) for message in messages]
    times = []
    for message in messages:
        one = message.index(time_bytes)
        times.append((one, message.index(time_bytes, one + 1)))
    return Template(
        np.frombuffer(b"".join(messages), np.uint8),
        offsets.astype(np.int32),
        offsets[:-1] + np.array(ids),
        offsets[:-1, None] + np.array(times),
    )


def _varint(when: datetime) -> bytes:
    """A time as Avro writes it: microseconds, zigzag; eight bytes for the years around these."""
    left, made = 2 * ((when - _EPOCH) // timedelta(microseconds=1)), bytearray()
    while left > 127:
        made.append(left & 127 | 128)
        left >>= 7
    made.append(left)
    assert len(made) == 8
    return bytes(made)


@dataclass(frozen=True)
class Source:
    """Where the records go: broker and registry, as `K2_LOG` and `K2_REGISTRY` name them."""

    log: str
    registry: str
    seed: int

    def declare(self) -> int:
        """Make exchange, topic and schema known; the schema's id."""
        url = f"simulator:?rate=max&kinds=trades&symbols=1&chunk=1&seed={self.seed}"
        with closing(open_log(self.log)) as log, closing(open_registry(self.registry)) as registry:
            (records,) = open_feed(url, None, lambda: datetime.now(UTC)).read()
            at = records.table.schema.get_field_index("exchange")
            field = records.table.schema.field(at)
            name = pa.array([EXCHANGE.name]).cast(field.type)
            sent = Producer(log, registry, PARTITIONS).send(
                EXCHANGE, "trades", records.table.set_column(at, field, name)
            )
            assert sent
            return registry.register(f"{TOPIC}-value", latest("trades").avro)


class Torrent:
    """A process that produces `rate` records a second, or as many as it can."""

    def __init__(
        self, source: Source, schema_id: int, first_id: int = 0, first_share: float = FIRST_SHARE
    ) -> None:
        self._source, self._schema_id = source, schema_id
        self._first_id, self._first_share = first_id, first_share
        self._sent: Synchronized[int] = multiprocessing.get_context("spawn").Value("q", 0)

    @property
    def sent(self) -> int:
        """Records acknowledged by the broker, or on their way there."""
        return self._sent.value

    @contextmanager
    def running(self, rate: float, seconds: float) -> Iterator[BaseProcess]:
        """The process, from its first record on; ended at the end."""
        context = multiprocessing.get_context("spawn")
        process = context.Process(
            target=_produce,
            args=(
                *(self._source, self._schema_id, self._first_id, self._first_share),
                *(rate, seconds, self._sent),
            ),
            daemon=True,
        )
        process.start()
        while not self.sent and process.is_alive():
            time.sleep(0.01)
        try:
            yield process
        finally:
            process.terminate()
            process.join()

    def send(self, count: int) -> float:
        """So many records as fast as it goes; how many a second that were."""
        began = time.perf_counter()
        with self.running(0, count) as process:
            began = time.perf_counter()
            already = self.sent
            process.join()
        return (self.sent - already) / (time.perf_counter() - began)


def _produce(
    source: Source,
    schema_id: int,
    first_id: int,
    first_share: float,
    rate: float,
    amount: float,
    sent: "Synchronized[int]",
) -> None:
    """`rate` 0: `amount` records as fast as it goes; else that many seconds at this rate."""
    templates = [template(p, schema_id, source.seed, first_share) for p in range(PARTITIONS)]
    client = Client(
        {
            "bootstrap.servers": source.log.partition(":")[2].partition("?")[0],
            "enable.idempotence": True,
            "compression.type": "lz4",
            "linger.ms": 5,
            "queue.buffering.max.messages": 2 * _UNDER_WAY,
            "queue.buffering.max.kbytes": 1 << 20,
            "log_level": 0,
        }
    )
    chunk = max(1, min(_CHUNK, int((rate or amount) / _TICKS / PARTITIONS)))
    done, began = 0, time.monotonic()
    while (time.monotonic() - began < amount) if rate else (done < amount):
        for partition, each in enumerate(templates):
            values = each.values(chunk, _FIRST_ID + first_id + done, datetime.now(UTC))
            client.produce_batch(TOPIC, [{"value": v} for v in values], partition=partition)
            done += chunk
            while len(client) > _UNDER_WAY:
                client.poll(0.01)
        client.poll(0)
        sent.value = done
        if rate:
            time.sleep(max(0.0, began + done / rate - time.monotonic()))
    client.flush()
