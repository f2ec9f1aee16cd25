"""The Python client against a running server: the reader's own answers, whole."""

import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2.api import Server, create_app
from k2.client import Client, client
from k2.errors import BadInput, NotFound, Unavailable
from k2.query import (
    Bulk,
    JoinWanted,
    MarkoutsWanted,
    Measuring,
    Reader,
    Replayed,
    Rule,
    Selection,
    SpreadsWanted,
    parse_interval,
    parse_span,
)
from tests.api.conftest import audit_of, home, reader

__all__ = ["home", "reader"]


@pytest.fixture
def k2(home: Path, reader: Reader) -> Iterator[Client]:
    server = Server(create_app(reader, audit_of(home), audit_seconds=None))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield Client(server.url)
    finally:
        server.stop()
        thread.join()


def plain(table: pa.Table) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def test_records_are_those_of_the_reader(k2: Client, reader: Reader) -> None:
    symbol = reader.symbols().table["symbol"][0].as_py()
    wanted = reader.records("trades", Selection((symbol,))).table
    assert plain(k2.trades(symbol)) == plain(wanted)
    assert k2.trades(symbol).schema.field("price").type == pa.decimal128(18, 8)
    assert plain(k2.last(symbol, 5)) == plain(wanted.slice(wanted.num_rows - 5))


def test_a_download_that_breaks_goes_on(
    k2: Client, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = reader.records("trades", Selection()).table
    begin, read, reads, begun = Reader.bulk, Bulk.read, [0], [0]

    def fewer(self: Reader, *given: Any, **more: Any) -> Bulk:
        begun[0], reads[0] = begun[0] + 1, 0
        return begin(self, *given, **more, rows=500)

    def breaks(self: Bulk, timeout: float | None = None) -> pa.Table | None:
        reads[0] += 1
        if reads[0] % 3 == 0:
            raise Unavailable("a fault that the test makes")
        return read(self, timeout)

    monkeypatch.setattr(Reader, "bulk", fewer)
    monkeypatch.setattr(Bulk, "read", breaks)
    assert plain(k2.trades()) == plain(wanted)
    assert begun[0] > 2
    parts = list(k2.records("trades", fields=["trade_id", "price"]))
    assert len(parts) > 4
    assert max(part.num_rows for part in parts) <= 500
    assert pa.concat_tables(parts).column_names == ["trade_id", "price"]

    def never(self: Bulk, timeout: float | None = None) -> pa.Table | None:
        raise Unavailable("a fault that the test makes")

    monkeypatch.setattr(Bulk, "read", never)
    with pytest.raises(Unavailable, match="a fault that the test makes"):
        k2.trades()


def test_a_join_is_that_of_the_reader(
    k2: Client, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol = reader.symbols().table["symbol"][0].as_py()
    wanted = reader.join(JoinWanted(), Selection((symbol,))).table
    assert wanted.num_rows > 20
    assert plain(k2.join("trades", "quotes", symbol)) == plain(wanted)
    monkeypatch.setattr(client, "_PAGE_ROWS", 7)
    narrow = k2.join("trades", "quotes", symbol, fields=["price", "bid_price"], max_age="1h")
    assert plain(narrow) == plain(wanted.select(["price", "bid_price"]))
    ahead = JoinWanted("quotes", "trades", Rule(strict=True, look_ahead=True))
    assert plain(k2.join("quotes", "trades", symbol, strict=True, look_ahead=True)) == plain(
        reader.join(ahead, Selection((symbol,))).table
    )


def test_spreads_and_markouts_are_those_of_the_reader(k2: Client, reader: Reader) -> None:
    symbol = reader.symbols().table["symbol"][0].as_py()
    how = Measuring(Rule(look_ahead=True), all_trades=True)
    spreads = SpreadsWanted(parse_interval("5s"), parse_span("1s"), how)
    begin = reader.records("quotes", Selection((symbol,)), limit=40).table["timestamp"][-1].as_py()
    selection = Selection((symbol,), start=begin)
    found = k2.spreads(symbol, "5s", "1s", start=begin, look_ahead=True, all_trades=True)
    assert found.num_rows > 1
    assert plain(found) == plain(reader.spreads(spreads, selection).table)
    markouts = MarkoutsWanted((parse_span("1s"), parse_span("2s")))
    found = k2.markouts(symbol, ["1s", "2s"], start=begin, strict=False)
    assert plain(found) == plain(reader.markouts(markouts, selection).table)
    with pytest.raises(BadInput):
        k2.markouts(symbol, nonsense=True)


def test_bars_are_all_of_the_range(
    k2: Client, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    symbol = reader.symbols().table["symbol"][0].as_py()
    wanted = reader.bars(Selection((symbol,)), "1s").table
    assert wanted.num_rows > 7
    assert plain(k2.bars(symbol, "1s")) == plain(wanted)
    # Page by page they are the same.
    monkeypatch.setattr(client, "_MOST_BARS", 3)
    assert plain(k2.bars(symbol, "1s")) == plain(wanted)
    end = wanted["start"][4].as_py()
    early = wanted.filter(pc.less(wanted["start"], end))
    assert plain(k2.bars(symbol, "1s", end=end)) == plain(early)


def test_a_day_is_a_date_or_text(k2: Client, reader: Reader) -> None:
    symbol = reader.symbols().table["symbol"][0].as_py()
    day = reader.records("trades", Selection((symbol,))).table["timestamp"][0].as_py().date()
    assert plain(k2.summary(symbol, day)) == plain(k2.summary(symbol, day.isoformat()))
    with pytest.raises(NotFound):
        k2.summary(symbol, date(1999, 1, 1))


def test_the_audit_tells_of_every_partition(k2: Client) -> None:
    found = k2.audit()
    assert found["ok"] is True
    assert {row["topic"].split(".")[2] for row in found["partitions"]} == {"trades", "quotes"}


def test_a_replay_is_that_of_the_reader(k2: Client, reader: Reader) -> None:
    kinds = ("trades", "quotes")
    wanted = pa.concat_tables(
        [played.records for played in reader.replay(Replayed(kinds, Selection()))]
    )
    batches = list(k2.replay(kinds=kinds, batch=3_000))
    assert max(batch.records.num_rows for batch in batches) == 3_000
    assert plain(pa.concat_tables([batch.records for batch in batches])) == plain(wanted)
    assert batches[0].records.schema.field("price").type == pa.decimal128(18, 8)
    # Behind each batch it goes on, in pages of any size.
    for seen in (0, len(batches) // 2, len(batches) - 1):
        rest = list(k2.replay(kinds=kinds, batch=1_111, after=batches[seen].position))
        head = [batch.records for batch in batches[: seen + 1]]
        whole = pa.concat_tables([*head, *(batch.records for batch in rest)])
        assert plain(whole) == plain(wanted)


def test_a_replay_keeps_its_pace_and_goes_on_in_mid_page(k2: Client, reader: Reader) -> None:
    table = reader.records("trades", Selection(), limit=400).table
    first, last = table["timestamp"][0].as_py(), table["timestamp"][399].as_py()
    speed = (last - first).total_seconds() / 0.6
    began = time.monotonic()
    batches = list(k2.replay(end=last, speed=speed))
    assert 0.5 < time.monotonic() - began < 5
    assert len(batches) > 20
    wanted = [one for batch in batches for one in batch.records["trade_id"].to_pylist()]
    assert wanted == [
        one
        for one, when in zip(
            table["trade_id"].to_pylist(), table["timestamp"].to_pylist(), strict=True
        )
        if when < last
    ]
    half = len(batches) // 2
    rest = k2.replay(after=batches[half].position)
    head = [one for batch in batches[: half + 1] for one in batch.records["trade_id"].to_pylist()]
    assert head + [one for b in rest for one in b.records["trade_id"].to_pylist()] == wanted


def test_positions_that_are_none(k2: Client) -> None:
    for text in ("", "x", ".5", "x.y"):
        with pytest.raises(BadInput, match="no position"):
            next(k2.replay(after=text))
    with pytest.raises(BadInput, match="another replay"):
        next(k2.replay(after="x.5"))


def test_what_cannot_be_reached_is_told() -> None:
    with pytest.raises(BadInput, match=r"127\.0\.0\.1:1"):
        Client("127.0.0.1:1")
    with pytest.raises(Unavailable) as told:
        Client("http://127.0.0.1:1").symbols()
    assert told.value.hint
