"""Tables of records into a real log, read back as a stranger would."""

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from k2.errors import BadInput, Refused
from k2.log import Log, Producer, Registry, Sent, open_log, open_registry
from k2.log.wire import partition_of
from k2.model import Exchange, decode, latest, versions

BINANCE = Exchange("binance", "crypto", "UTC")
TOPIC = "market.crypto.trades.binance"
SYMBOLS = [f"S{number}USDT" for number in range(20)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    opened = open_log(tmp_path / "log.db")
    yield opened
    opened.close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    opened = open_registry(tmp_path / "registry.db")
    yield opened
    opened.close()


def trades(symbols: list[str]) -> pa.Table:
    """A trade for each symbol, numbered in its `source_sequence`."""
    schema = latest("trades").arrow
    count = len(symbols)
    now = datetime(2026, 3, 1, tzinfo=UTC)
    given: dict[str, list[Any]] = {
        "symbol": symbols,
        "exchange": ["binance"] * count,
        "timestamp": [now] * count,
        "price": [Decimal("1.5")] * count,
        "quantity": [Decimal(2)] * count,
        "ingestion_timestamp": [now] * count,
        "side": ["BUY"] * count,
        "price_forming": [True] * count,
        "id_space": [""] * count,
        "source_sequence": list(range(count)),
        "timestamp_nanos": [0] * count,
    }
    columns = [
        pa.array(given.get(field.name, [None] * count), field.type)
        if not pa.types.is_dictionary(field.type)
        else pa.array(given.get(field.name, [None] * count), pa.string())
        .dictionary_encode()
        .cast(field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def received(log: Log, registry: Registry, partition: int, kind: str = "trades") -> pa.Table:
    (batch,) = log.read(f"market.crypto.{kind}.binance", partition, 0, 1 << 30)
    (schema_id,) = np.unique(batch.schema_ids)
    found = decode(batch.values, registry.schema(int(schema_id)), latest(kind))
    assert found.errors == []
    return found.table


def test_records_arrive_as_they_were_sent(log: Log, registry: Registry) -> None:
    table = trades(SYMBOLS * 50)
    sent = Producer(log, registry, 4).send(BINANCE, "trades", table)
    assert [each.partition for each in sent] == [0, 1, 2, 3]
    assert {(each.topic, each.first_offset) for each in sent} == {(TOPIC, 0)}
    assert sum(each.count for each in sent) == 1000
    assert log.topics() == {TOPIC: 4}
    assert registry.subjects() == [f"{TOPIC}-value"]
    for each in sent:
        assert log.end_offset(TOPIC, each.partition) == each.count
        mask = [partition_of(s, 4) == each.partition for s in table["symbol"].to_pylist()]
        wanted = table.filter(pa.array(mask))
        assert received(log, registry, each.partition).to_pylist() == wanted.to_pylist()


def test_a_second_send_goes_on(log: Log, registry: Registry) -> None:
    producer = Producer(log, registry, 1)
    assert producer.send(BINANCE, "trades", trades(SYMBOLS)) == [Sent(TOPIC, 0, 0, 20)]
    assert producer.send(BINANCE, "trades", trades(["A"])) == [Sent(TOPIC, 0, 20, 1)]
    assert producer.send(BINANCE, "trades", trades([])) == []
    assert Producer(log, registry, 8).send(BINANCE, "trades", trades(["A"])) == [
        Sent(TOPIC, 0, 21, 1)  # the topic keeps its one partition
    ]


def test_one_symbol_stays_in_one_partition(log: Log, registry: Registry) -> None:
    producer = Producer(log, registry, 7)
    places = [producer.send(BINANCE, "trades", trades([symbol] * 3)) for symbol in SYMBOLS * 2]
    assert all(len(sent) == 1 for sent in places)
    found = [sent[0].partition for sent in places]
    assert found[:20] == found[20:] == [partition_of(symbol, 7) for symbol in SYMBOLS]


@pytest.mark.parametrize("form", ["chunks", "plain strings", "slice", "shared dictionary"])
def test_any_form_of_column_is_taken(log: Log, registry: Registry, form: str) -> None:
    table = trades(SYMBOLS * 3)
    index = table.column_names.index("symbol")
    if form == "chunks":
        table = pa.concat_tables([trades(SYMBOLS[5:]), trades(SYMBOLS[:7]), trades(["ß", "日本"])])
    elif form == "plain strings":
        table = table.set_column(index, "symbol", table["symbol"].cast(pa.string()))
    elif form == "slice":
        table = table.slice(7, 20)
    else:
        dictionary = pa.array(["never"] * 5 + SYMBOLS[:1])
        codes = pa.array([5] * table.num_rows, pa.int32())
        column = pa.DictionaryArray.from_arrays(codes, dictionary)
        table = table.set_column(index, "symbol", column)
    sent = Producer(log, registry, 3).send(BINANCE, "trades", table)
    symbols = table["symbol"].to_pylist()
    for each in sent:
        wanted = [s for s in symbols if partition_of(s, 3) == each.partition]
        found = received(log, registry, each.partition)["symbol"].to_pylist()
        assert found == wanted


def test_kinds_without_symbol_go_to_partition_0(log: Log, registry: Registry) -> None:
    schema = latest("rejects").arrow
    row = {field.name: None for field in schema} | {
        "exchange": "binance",
        "kind": "trades",
        "reason": "price is no number",
        "raw": b"12,5",
        "ingestion_timestamp": datetime(2026, 3, 1, tzinfo=UTC),
    }
    columns = [
        pa.array([row[field.name]] * 2, pa.string()).dictionary_encode()
        if pa.types.is_dictionary(field.type)
        else pa.array([row[field.name]] * 2, field.type)
        for field in schema
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    assert Producer(log, registry, 4).send(BINANCE, "rejects", table) == [
        Sent("market.crypto.rejects.binance", 0, 0, 2)
    ]
    assert received(log, registry, 0, "rejects").to_pylist() == table.to_pylist()


def test_the_exchange_is_declared_with_the_first_record(log: Log, registry: Registry) -> None:
    Producer(log, registry, 1).send(BINANCE, "trades", trades(["A"]))
    assert log.latest("k2.exchanges") == {"binance": BINANCE.to_json()}
    Producer(log, registry, 1).send(BINANCE, "trades", trades(["A"]))
    other = Exchange("binance", "crypto", "Asia/Tokyo", timedelta(hours=1))
    with pytest.raises(Refused, match="binance") as raised:
        Producer(log, registry, 1).send(other, "trades", trades(["A"]))
    assert raised.value.hint
    assert log.end_offset(TOPIC, 0) == 2
    assert log.latest("k2.exchanges") == {"binance": BINANCE.to_json()}


class Interrupting:
    """A log that lets something else happen before the `at`th look or write of whoever has it."""

    def __init__(self, log: Log, at: int, other: Callable[[], None]) -> None:
        self._log = log
        self._at = at
        self._other = other
        self.calls = 0

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self._at:
            self._other()

    def put(self, topic: str, key: str, value: str) -> None:
        self._count()
        self._log.put(topic, key, value)

    def latest(self, topic: str) -> Mapping[str, str]:
        self._count()
        return self._log.latest(topic)


@pytest.mark.parametrize("at", range(1, 7))
def test_two_declarations_at_one_moment_are_not_both_believed(
    log: Log, registry: Registry, at: int
) -> None:
    other = Exchange("binance", "crypto", "Asia/Tokyo")
    believed = []

    def declare(through: Any, exchange: Exchange) -> None:
        with suppress(Refused):
            Producer(through, registry, 1).declare(exchange)
            believed.append(exchange.to_json())

    first = Interrupting(log, at, lambda: declare(log, other))
    declare(first, BINANCE)
    assert first.calls >= at, "it was interrupted"
    assert believed == list(log.latest("k2.exchanges").values())
    # Whoever was refused may try again, and hears of the one that stands.
    for exchange in (BINANCE, other):
        declare(log, exchange)
    assert set(believed) == set(log.latest("k2.exchanges").values())


def test_many_may_declare_the_same_at_once(log: Log, registry: Registry) -> None:
    with ThreadPoolExecutor(8) as threads:
        for _ in threads.map(lambda _: Producer(log, registry, 1).declare(BINANCE), range(8)):
            pass
    assert log.latest("k2.exchanges") == {"binance": BINANCE.to_json()}


def test_an_older_schema_in_the_registry_is_followed(log: Log, registry: Registry) -> None:
    older, newer = versions("trades")
    first = registry.register(f"{TOPIC}-value", older.avro)
    Producer(log, registry, 1).send(BINANCE, "trades", trades(["A"]))
    (batch,) = log.read(TOPIC, 0, 0, 1 << 20)
    assert batch.schema_ids.tolist() == [first + 1]
    assert registry.versions(f"{TOPIC}-value")[1].schema == newer.avro


def test_a_schema_that_cannot_follow_sends_nothing(log: Log, registry: Registry) -> None:
    foreign = {"type": "record", "name": "deal", "fields": [{"name": "a", "type": "int"}]}
    registry.register(f"{TOPIC}-value", foreign)
    with pytest.raises(Refused, match="renamed"):
        Producer(log, registry, 1).send(BINANCE, "trades", trades(["A"]))
    assert log.topics() == {}


def test_a_table_that_is_no_table_of_the_kind_sends_nothing(log: Log, registry: Registry) -> None:
    with pytest.raises(BadInput):
        Producer(log, registry, 1).send(BINANCE, "trades", trades(["A"]).drop_columns(["price"]))
    assert log.end_offset(TOPIC, 0) == 0


def test_partitions_that_are_added_get_records_soon(
    log: Log, registry: Registry, tmp_path: Path
) -> None:
    now = 0.0
    producer = Producer(log, registry, 1, lambda: now)
    assert {sent.partition for sent in producer.send(BINANCE, "trades", trades(SYMBOLS))} == {0}
    with closing(sqlite3.connect(tmp_path / "log.db")) as database, database:
        database.execute("INSERT INTO partitions (topic_id, number) SELECT id, 1 FROM topics")
    now = 11.0
    for _ in range(2):
        sent = producer.send(BINANCE, "trades", trades(SYMBOLS))
    assert {each.partition for each in sent} == {0, 1}
    assert sum(each.count for each in sent) == len(SYMBOLS)
