import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from k2.errors import BadInput, NotFound, Refused
from k2.ingest import Writer, WriterOptions
from k2.lake import open_lake
from k2.log import Producer, open_log, open_registry
from k2.model import latest
from k2.query import Condition, Reader, Selection, open_reader
from tests.query import reference
from tests.query.make import EXCHANGES, Row, order_of, random_trades

NOW = datetime(2026, 11, 24, tzinfo=UTC)


class Market:
    """A home that records are appended to and committed in, as feeds and a writer do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.appended: list[Row] = []
        with ExitStack() as stack:
            self.log = stack.enter_context(closing(open_log(folder / "log.db")))
            self.registry = stack.enter_context(closing(open_registry(folder / "registry.db")))
            self.lake = stack.enter_context(closing(open_lake(folder / "lake")))
            self.close = stack.pop_all().close
        self._producer = Producer(self.log, self.registry, 2)

    def append(self, rows: list[Row]) -> None:
        """Append the rows; each gets an id of its own, so that none is a duplicate."""
        for n, row in enumerate(rows, len(self.appended)):
            row["trade_id"] = str(n)
            row["ingestion_timestamp"] = row["timestamp"]
        self.append_again(rows)
        self.appended += rows

    def append_again(self, rows: list[Row]) -> None:
        """Append the rows as they are."""
        schema = latest("trades").arrow
        for exchange in sorted({row["exchange"] for row in rows}):
            mine = [row for row in rows if row["exchange"] == exchange]
            plain = pa.Table.from_pylist(
                [{name: row.get(name) for name in schema.names} for row in mine],
                schema=pa.schema(
                    [
                        f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f
                        for f in schema
                    ]
                ),
            )
            self._producer.send(EXCHANGES[exchange], "trades", plain.cast(schema))

    def commit(self) -> None:
        writer = Writer(
            self.log, self.registry, self.lake, WriterOptions(skew=timedelta(minutes=5))
        )
        writer.run(lambda: False, until_caught_up=True)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(market: Market) -> Iterator[Reader]:
    with open_reader(market.folder, clock=lambda: NOW) as opened:
        yield opened


def until(true: Callable[[], bool]) -> None:
    """Wait until it is, ten seconds at most."""
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def ids(answer_table: pa.Table) -> list[str]:
    return list(answer_table["trade_id"].to_pylist())


def test_history_and_tail_are_one(market: Market, reader: Reader) -> None:
    rows = random_trades(1, 300, exchanges=("sim", "ASX"))
    for n in range(0, 300, 60):
        market.append(rows[n : n + 60])
        if n % 120 == 0:
            market.commit()
        answer = reader.records("trades", Selection())
        assert sorted(ids(answer.table)) == sorted(row["trade_id"] for row in market.appended)
        times = answer.table["timestamp"].to_pylist()
        assert times == sorted(times)
        bars = reader.bars(Selection(), "1m")
        assert bars.table.drop_columns("complete").to_pylist() == reference.bars(
            sorted(_as_logged(market, reader), key=order_of), timedelta(minutes=1)
        )
        json.dumps(answer.meta)
        offsets = answer.meta["offsets"]
        assert isinstance(offsets, dict)
        assert sum(end for of in offsets.values() for end in of.values()) == len(market.appended)


def _as_logged(market: Market, reader: Reader) -> list[Row]:
    """All rows with the places that the log gave them."""
    names = latest("trades").arrow.names
    fields = (*names, "exchange_date", "log_topic", "log_partition", "log_offset")
    return list(reader.records("trades", Selection(), fields=fields).table.to_pylist())


def test_pages_see_one_state_while_data_arrive(market: Market, reader: Reader) -> None:
    market.append(random_trades(2, 60))
    market.commit()
    market.append(random_trades(3, 60, start=datetime(2024, 3, 4, 21, tzinfo=UTC)))
    expected = ids(reader.records("trades", Selection()).table)
    seen: list[str] = []
    answer = reader.records("trades", Selection(), limit=17)
    seen += ids(answer.table)
    step = 0
    while answer.next is not None:
        market.append(random_trades(10 + step, 20, start=datetime(2024, 3, 4, 20, tzinfo=UTC)))
        if step % 2:
            market.commit()
        answer = reader.records("trades", Selection(), limit=17, after=answer.next)
        seen += ids(answer.table)
        step += 1
    assert seen == expected
    with pytest.raises(BadInput, match="page token"):
        reader.records("trades", Selection(("A",)), limit=17, after="x")


def test_a_tail_of_one_row_is_seen_on_later_pages(market: Market, reader: Reader) -> None:
    market.append(random_trades(1, 4))
    market.commit()
    market.append(random_trades(2, 1, start=datetime(2024, 3, 6, tzinfo=UTC)))
    first = reader.records("trades", Selection(), limit=4)
    market.append(random_trades(3, 5, start=datetime(2024, 3, 7, tzinfo=UTC)))
    second = reader.records("trades", Selection(), limit=4, after=first.next)
    assert (ids(second.table), second.next) == ([market.appended[4]["trade_id"]], None)


def test_as_of_gives_what_was_there(market: Market, reader: Reader) -> None:
    states = []
    for n in range(3):
        market.append(random_trades(n, 40))
        market.commit()
        newest = reader.snapshots().table.to_pylist()[0]
        states.append((newest["snapshot_id"], ids(reader.records("trades", Selection()).table)))
    market.append(random_trades(9, 40))
    market.lake.tag("trades", "second", 2)
    for snapshot_id, expected in states:
        answer = reader.records("trades", Selection(), as_of=snapshot_id)
        assert ids(answer.table) == expected
        assert answer.meta["as_of"] == snapshot_id
        pages = []
        answer = reader.records("trades", Selection(), as_of=snapshot_id, limit=25)
        pages += ids(answer.table)
        while answer.next:
            answer = reader.records(
                "trades", Selection(), as_of=snapshot_id, limit=25, after=answer.next
            )
            pages += ids(answer.table)
        assert pages == expected
    assert ids(reader.records("trades", Selection(), as_of="second").table) == states[1][1]
    assert reader.stats(as_of="second").table["rows"].to_pylist() == [80]
    counted = reader.symbols(as_of="second").table
    assert sum(counted["trades"].to_pylist()) == 80
    assert reader.snapshots().table["tags"].to_pylist() == [None, "second", None]
    for nothing in ("2001-01-01T00:00:00Z", "no-such-tag", "12345"):
        for ask in (reader.stats, reader.symbols):
            with pytest.raises(NotFound):
                ask(as_of=nothing)
        with pytest.raises(NotFound):
            reader.records("trades", Selection(), as_of=nothing)


def test_summary_is_a_day_where_it_is_traded(market: Market, reader: Reader) -> None:
    rows = random_trades(5, 200, exchanges=("sim", "ASX"), span=timedelta(days=2))
    market.append(rows[:100])
    market.commit()
    market.append(rows[100:])
    day = date(2024, 3, 5)
    expected = [
        bar
        for bar in reference.bars(_as_logged(market, reader), timedelta(days=1))
        if bar["symbol"] == "A"
        and bar["start"] == reference.midnight(EXCHANGES[bar["exchange"]].zone, day)
    ]
    found = reader.summary("A", day)
    assert found.table.drop_columns(["date"]).to_pylist() == [
        {k: v for k, v in bar.items() if k != "start"} for bar in expected
    ]
    assert set(found.table["date"].to_pylist()) == {day}
    assert reader.summary("A", day, exchange="ASX").table.num_rows == 1
    for nothing in (("A", date(2030, 1, 1)), ("B' or 1=1 --", day), ("", day)):
        with pytest.raises(NotFound, match="no trade"):
            reader.summary(*nothing)


def test_symbols_and_stats_count_history_and_tail(market: Market, reader: Reader) -> None:
    assert reader.symbols().table.num_rows == 0
    rows = random_trades(6, 100, exchanges=("sim", "ASX"))
    market.append(rows[:60])
    market.commit()
    market.append(rows[60:])
    for _ in range(2):
        found = reader.symbols().table.to_pylist()
        for line in found:
            mine = [
                row
                for row in rows
                if (row["symbol"], row["exchange"]) == (line["symbol"], line["exchange"])
            ]
            assert line["trades"] == len(mine)
            assert line["quotes"] == 0
            assert line["asset_class"] == EXCHANGES[line["exchange"]].asset_class
            assert line["first_timestamp"] == min(row["timestamp"] for row in mine)
            assert line["last_timestamp"] == max(row["timestamp"] for row in mine)
        assert sum(line["trades"] for line in found) == 100
    (stats,) = [row for row in reader.stats().table.to_pylist() if row["table"] == "trades"]
    assert (stats["rows"], stats["tail_rows"], stats["lag_messages"]) == (60, 40, 40)
    assert stats["first_timestamp"] == min(row["timestamp"] for row in rows)
    assert stats["last_timestamp"] == max(row["timestamp"] for row in rows)
    assert {r["exchange"] for r in reader.symbols(exchange="ASX").table.to_pylist()} == {"ASX"}


def test_ledgers_tell_of_duplicates_and_commits(market: Market, reader: Reader) -> None:
    for name in ("rejected", "duplicates", "gaps", "commits"):
        assert reader.ledger(name).table.num_rows == 0
    market.append(random_trades(7, 20))
    market.commit()
    market.append_again(market.appended[:3])
    market.commit()
    found = reader.ledger("duplicates").table.to_pylist()
    assert sorted(row["symbol"] for row in found) == sorted(
        row["symbol"] for row in market.appended[:3]
    )
    assert reader.ledger("duplicates", limit=2).table.num_rows == 2
    commits = reader.ledger("commits").table
    assert commits.num_rows == 2
    assert commits["duplicates"].to_pylist() == [3, 0]
    assert reader.ledger("commits", limit=1).table["commit"].to_pylist() == [2]
    assert not any(pa.types.is_dictionary(field.type) for field in commits.schema)
    symbol = found[0]["symbol"]
    mine = reader.ledger("duplicates", wanted={"symbol": symbol, "kind": None}).table
    assert mine.num_rows == sum(row["symbol"] == symbol for row in found)
    assert reader.ledger("duplicates", wanted={"kind": "quotes"}).table.num_rows == 0
    with pytest.raises(BadInput, match="have no symbol"):
        reader.ledger("commits", wanted={"symbol": symbol})
    with pytest.raises(BadInput, match="have no state"):
        reader.ledger("duplicates", state="open")
    with pytest.raises(BadInput, match="no such state"):
        reader.ledger("gaps", state="shut")
    with pytest.raises(NotFound, match="no ledger"):
        reader.ledger("sheds")
    with pytest.raises(NotFound):
        reader.snapshots("rejected")
    with pytest.raises(BadInput, match="limit"):
        reader.ledger("rejected", limit=0)


def test_sql_sees_the_same_rows(market: Market, reader: Reader) -> None:
    market.append(random_trades(8, 50))
    market.commit()
    market.append(random_trades(9, 50))
    answer = reader.sql("select count(*) as n, sum(quantity) as s from trades")
    expected = sum((row["quantity"] for row in market.appended), Decimal(0))
    assert answer.table.to_pylist() == [{"n": 100, "s": expected}]
    assert list(answer.meta["snapshots"]) == ["trades"]  # type: ignore[call-overload]
    assert reader.sql("select * from trades", limit=10).table.num_rows == 10
    assert reader.sql("select * from trades", limit=10).meta["notes"]
    for name in ("quotes", "instruments", "dividends", "splits", "rejected", "duplicates", "gaps"):
        assert reader.sql(f"select * from {name}").table.num_rows == 0
    assert reader.sql('select "commit" from commits').table.num_rows == 1
    with pytest.raises(Refused):
        reader.sql("select * from read_text('/etc/passwd')")
    with pytest.raises(BadInput, match="no table"):
        reader.sql("select * from sheds")


def test_status_tells_what_a_strip_shows(market: Market) -> None:
    with open_reader(market.folder, follow=True, clock=lambda: NOW) as reader:
        assert reader.status()["freshness_seconds"] is None
        until(lambda: reader.status()["records_per_second"] is not None)
        rows = random_trades(1, 50)
        market.append(rows)
        until(lambda: bool(reader.status()["records_per_second"]))
        found = reader.status()
    newest = max(row["timestamp"] for row in rows)
    assert found["freshness_seconds"] == (NOW - newest).total_seconds()
    assert (found["rows"], found["tail_rows"], found["lag_messages"]) == (50, 50, 50)
    assert float(str(found["records_per_second"])) > 0
    json.dumps(found)


def test_many_threads_ask_while_data_are_committed(market: Market, reader: Reader) -> None:
    market.append(random_trades(1, 200))
    stop, failures = threading.Event(), []

    def ask(n: int) -> None:
        while not stop.is_set():
            try:
                before = len(market.appended)
                found = reader.records("trades", Selection(), fields=("trade_id",))
                distinct = len(set(ids(found.table)))
                if not before <= distinct == found.table.num_rows:
                    failures.append(f"{distinct} of {found.table.num_rows}, at least {before}")
                if n % 2:
                    reader.bars(Selection(("A",)), "1m", last=3)
            except Exception as error:  # noqa: BLE001 - whatever it is fails the test below
                failures.append(repr(error))
                return

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for n in range(8):
        market.append(random_trades(50 + n, 50))
        market.commit()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []


def test_unknown_things_are_named(reader: Reader) -> None:
    with pytest.raises(NotFound, match="no records called"):
        reader.records("candles", Selection())
    with pytest.raises(BadInput, match="no interval"):
        reader.bars(Selection(), "7m")
    with pytest.raises(BadInput, match="no column"):
        reader.records("trades", Selection(where=(Condition("x", "=", "1"),)))
    assert reader.records("trades", Selection(("none",))).table.num_rows == 0
    assert reader.bars(Selection(("none",)), "1m", last=5, fill=True).table.num_rows == 0


FIRST, LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["\ud800", "a\ud800b"])
def test_text_that_is_none_is_refused(reader: Reader, text: str) -> None:
    asks: list[Callable[[], object]] = [
        lambda: reader.records("trades", Selection((text,))),
        lambda: reader.records("trades", Selection(exchanges=(text,))),
        lambda: reader.records("trades", Selection(where=(Condition("side", "=", text),))),
        lambda: reader.records("trades", Selection(), as_of=text),
        lambda: reader.summary(text, date(2024, 3, 5)),
        lambda: reader.symbols(exchange=text),
        lambda: reader.sql(f"select '{text}'"),
    ]
    for ask in asks:
        with pytest.raises(BadInput, match="no Unicode text"):
            ask()


def test_numbers_past_all_reason_are_refused(reader: Reader) -> None:
    asks: list[Callable[[int], object]] = [
        lambda n: reader.records("trades", Selection(), last=n),
        lambda n: reader.records("trades", Selection(), limit=n),
        lambda n: reader.bars(Selection(), "1m", last=n),
        lambda n: reader.ledger("rejected", limit=n),
        lambda n: reader.snapshots(limit=n),
        lambda n: reader.sql("select 1", limit=n),
    ]
    for count in (0, -1, 2**31, 2**63, 2**70):
        for ask in asks:
            with pytest.raises(BadInput, match="must be 1 to"):
                ask(count)


def test_times_at_the_ends_of_all_time_are_times(market: Market, reader: Reader) -> None:
    market.append(random_trades(1, 20))
    market.commit()
    for start, end in ((FIRST, LAST), (date.min, date.max)):
        selection = Selection(start=start, end=end)
        assert reader.records("trades", selection, last=5).table.num_rows == 5
        assert reader.bars(selection, "1d", last=1_000_000_000).table.num_rows
        with pytest.raises(Refused, match="most of them empty"):
            reader.bars(selection, "1m", fill=True)
    for day in (date.min, date.max):
        with pytest.raises(NotFound):
            reader.summary("A", day)
    with pytest.raises(NotFound):
        reader.records("trades", Selection(), as_of="9" * 50)
    with pytest.raises(BadInput):
        reader.records("trades", Selection(), as_of="0001-01-01T00:00:00+14:00")
