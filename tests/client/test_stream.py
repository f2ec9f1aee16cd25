"""Streams of the Python client: history and what arrives, each record once, whatever breaks."""

import time
from itertools import count
from typing import Any

import pyarrow as pa
import pytest

from k2.api.stream import _Arrow
from k2.client import Client, stream
from k2.errors import BadInput, Unavailable
from k2.query import Part, Replayed, Selection
from tests.api.conftest import fill
from tests.api.test_stream import Live, live, market_going_on, one_of

__all__ = ["live"]

KINDS = ("trades", "quotes")
START = "2026-01-01T00:00:00Z"


def client_of(live: Live) -> Client:
    return Client(live.server.url)


def ids(tables: list[pa.Table]) -> list[str]:
    return sorted(one_of(row) for table in tables for row in table.to_pylist())


def test_a_stream_with_an_end_is_the_replay(live: Live) -> None:
    wanted = [played.records for played in live.reader.replay(Replayed(KINDS, Selection()))]
    batches = list(client_of(live).stream(kinds=KINDS, end="2030-01-01T00:00:00Z", batch=700))
    assert max(batch.records.num_rows for batch in batches) == 700
    told = pa.concat_tables([batch.records for batch in batches])
    assert told.to_pylist() == pa.concat_tables(wanted).to_pylist()
    assert told.schema.field("price").type == pa.decimal128(18, 8)
    (symbol,) = set(told["symbol"][:1].to_pylist())
    few = client_of(live).stream(symbol, end="2030-01-01T00:00:00Z", speed=1e6)
    of_one = pa.concat_tables([batch.records for batch in few])
    assert set(of_one["symbol"].to_pylist()) == {symbol}
    end = {"end": "2030-01-01T00:00:00Z", "after": batches[-1].position}
    assert list(client_of(live).stream(kinds=KINDS, **end)) == []  # type: ignore[arg-type]


def test_history_becomes_live_though_connections_break(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, parts = _Arrow.encode, count(1)

    def breaks(self: _Arrow, part: Part, position: str) -> bytes:
        if next(parts) % 5 == 0:
            raise OSError("a fault that the test makes")
        return encode(self, part, position)

    monkeypatch.setattr(_Arrow, "encode", breaks)
    monkeypatch.setattr(stream, "_RETRY_SECONDS", 0.01)
    told: list[pa.Table] = []
    found = client_of(live).stream(kinds=KINDS, start=START, batch=300)
    with market_going_on(live.home, 4_500):
        for batch in found:
            told.append(batch.records)
            if sum(table.num_rows for table in told) >= 4_400:
                break
        position = batch.position
        found.close()
    again = client_of(live).stream(kinds=KINDS, batch=300, start=START, after=position)
    fill(live.home, 4_600, commit=False)
    expected = sorted(live.ids("trades") + live.ids("quotes"))
    while sum(table.num_rows for table in told) < len(expected):
        told.append(next(again).records)
    assert ids(told) == expected
    assert next(parts) > 10


def test_without_a_start_only_what_arrives_is_told(live: Live) -> None:
    before = set(live.ids("trades"))
    found = client_of(live).stream()
    batches: list[Any] = []
    # Asked for lazily: the stream begins with the first look, in the middle of what arrives.
    with market_going_on(live.home, 4_000):
        batches.append(next(found))
    while len(batches) < 3:
        fill(live.home, 4_000 + 100 * len(batches), commit=True)
        batches.append(next(found))
    told = ids([batch.records for batch in batches])
    assert told
    assert set(told) <= set(live.ids("trades")) - before
    assert len(set(told)) == len(told)


def test_who_takes_long_over_a_batch_is_not_given_up(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, parts = _Arrow.encode, count(1)

    def breaks(self: _Arrow, part: Part, position: str) -> bytes:
        if next(parts) == 2:
            raise OSError("a fault that the test makes")
        return encode(self, part, position)

    monkeypatch.setattr(_Arrow, "encode", breaks)
    monkeypatch.setattr(stream, "_PATIENCE_SECONDS", 0.3)
    monkeypatch.setattr(stream, "_RETRY_SECONDS", 0.01)
    found = client_of(live).stream(end="2030-01-01T00:00:00Z", batch=300)
    told = [next(found).records]
    time.sleep(0.6)
    told += [batch.records for batch in found]
    assert ids(told) == live.ids("trades")


def test_a_server_that_is_gone_is_told_at_last(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_PATIENCE_SECONDS", 0.5)
    found = client_of(live).stream(start=START, batch=10_000)
    next(found)
    live.server.stop()
    with pytest.raises(Unavailable):
        next(found)
    with pytest.raises(Unavailable, match="cannot be reached"):
        next(Client("http://127.0.0.1:9").stream())


def test_what_cannot_be_streamed(live: Live) -> None:
    for wrong in ({"kinds": ["bars"]}, {"batch": 0}, {"after": "x"}, {"speed": 0.0}):
        with pytest.raises(BadInput):
            next(client_of(live).stream(**wrong))
