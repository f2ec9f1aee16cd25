"""What stands after corrections: against a plain reference, and over a home with log and tables."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput, NotFound
from k2.lake import DataFileRef, definition
from k2.log import Producer
from k2.model import latest
from k2.query import Reader, Selection, open_reader
from k2.query.bars import BarsWanted, make_bars
from k2.query.corrections import corrected
from k2.query.duckdb import DuckDB
from k2.query.interval import parse_interval
from k2.query.records import Wanted, fetch_records
from k2.query.view import View
from tests.query import make, reference
from tests.query.make import EXCHANGES, Row, order_of, random_trades, split, trade
from tests.query.test_reader import Market

COLUMNS = definition("corrections").arrow
PLACE = {
    "target_log_id": "log_id",
    "target_partition": "log_partition",
    "target_offset": "log_offset",
}
MONDAY = datetime(2024, 3, 4, 22, tzinfo=UTC)
TUESDAY = MONDAY + timedelta(days=1)
LATER = datetime(2026, 11, 24, tzinfo=UTC)


def about(trade: Row, action: str, when: datetime, *, offset: int = 0, **more: Any) -> Row:
    """A correction of the trade as a row of the table: by its id, or else by its place."""
    by_id = trade.get("occurrence") is None and trade.get("trade_id") is not None
    target = (
        {"trade_id": trade["trade_id"]}
        if by_id
        else {target: trade[name] for target, name in PLACE.items()}
    )
    exchange = trade["exchange"]
    return {
        "symbol": trade["symbol"],
        "exchange": exchange,
        "timestamp": when,
        "action": action,
        "ingestion_timestamp": when,
        "id_space": trade["id_space"],
        "target_timestamp": trade["timestamp"],
        "timestamp_nanos": 0,
        "exchange_date": trade["exchange_date"],
        "log_topic": f"market.{EXCHANGES[exchange].asset_class}.corrections.{exchange}",
        "log_id": f"corrections-{exchange}",
        "log_partition": 0,
        "log_offset": offset,
        **target,
        **more,
    }


def stood(trades: Sequence[Row], corrections: Sequence[Row], by: datetime | None) -> list[Row]:
    """The trades that stand, one after the other; of all that was known `by` then."""
    found = []
    for row in (row for row in trades if by is None or known(row) <= by):
        mine = [c for c in corrections if is_about(c, row) and (by is None or known(c) <= by)]
        mine.sort(key=order_of)
        changed = {
            name: c[name]
            for c in mine
            for name in ("price", "quantity")
            if c["action"] == "CORRECT" and c.get(name) is not None
        }
        if not mine or mine[-1]["action"] == "CORRECT":
            found.append({**row, **changed})
    return found


def known(row: Row) -> datetime:
    if row.get("source_received_timestamp") is not None:
        when: datetime = row["source_received_timestamp"]
        return when
    live = timedelta(0) <= row["ingestion_timestamp"] - row["timestamp"] <= timedelta(minutes=1)
    found: datetime = row["ingestion_timestamp" if live else "timestamp"]
    return found


def is_about(correction: Row, row: Row) -> bool:
    if any(correction[name] != row[name] for name in ("symbol", "exchange", "exchange_date")):
        return False
    if row.get("occurrence") is None and row.get("trade_id") is not None:
        return all(correction.get(name) == row[name] for name in ("trade_id", "id_space"))
    return all(correction.get(target) == row[name] for target, name in PLACE.items())


def write(
    folder: Path, rows: Sequence[Row], sequence: int, columns: pa.Schema
) -> list[DataFileRef]:
    """The files of one commit, one a day, as the writer makes them."""
    days = sorted({row["exchange_date"] for row in rows})
    return [
        replace(
            make.write_file(
                folder, [r for r in rows if r["exchange_date"] == day], sequence, columns=columns
            ),
            exchange_date=day,
        )
        for day in days
    ]


def view_of(
    folder: Path, table: str, commits: Sequence[Sequence[Row]], tail: Sequence[Row]
) -> View:
    """A view of a table whose n-th commit (from 1) brought `commits[n - 1]`, with this tail."""
    columns = definition(table).arrow
    files = [file for n, rows in enumerate(commits, 1) for file in write(folder, rows, n, columns)]
    return View(
        table=table,
        columns=columns,
        time="timestamp",
        index=make.Files(tuple(files)),
        sequence=len(commits),
        tail=make.to_table(tail, columns) if tail else None,
        ranges=make.ranges_of(tail),
        exchanges=EXCHANGES,
    )


def random_corrections(seed: int, count: int, trades: Sequence[Row]) -> list[Row]:
    """Corrections of some of the trades, many of one, and some whose trade there is not."""
    r = np.random.default_rng(seed)
    found = []
    for offset in range(count):
        row = trades[int(r.integers(min(len(trades), 1 + count // 2)))]
        action = ("BUST", "CANCEL", "CORRECT", "CORRECT")[int(r.integers(4))]
        new = {
            "price": Decimal(int(r.integers(1, 999))).scaleb(-2) if r.integers(2) else None,
            "quantity": Decimal(int(r.integers(1, 999))).scaleb(-2),
        }
        when = row["timestamp"] + timedelta(hours=int(r.integers(1, 30)))
        found.append(about(row, action, when, offset=offset, **new))
        if row["trade_id"] and row["occurrence"] is not None and r.integers(2):
            # Such a trade is known by its content: its id names no one.
            found[-1].update(dict.fromkeys(PLACE), trade_id=row["trade_id"])
        if not r.integers(6):
            found[-1].update(symbol="GONE")
        if not r.integers(4):
            found[-1].update(source_received_timestamp=when + timedelta(hours=2))
    return found


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    corrections=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 10**6), max_size=3),
    hours=st.one_of(st.none(), st.integers(0, 40)),
    chosen=st.sampled_from([(), ("A",), ("A", "B")]),
)
def test_what_stands_equals_a_plain_reference_however_rows_are_split(
    engine: DuckDB,
    seed: int,
    count: int,
    corrections: int,
    cuts: list[int],
    hours: int | None,
    chosen: tuple[str, ...],
) -> None:
    rows = random_trades(seed, count, exchanges=("sim", "ASX"), span=timedelta(hours=30))
    for n, row in enumerate(rows):
        # A third has ids, a third has none, a third has both an id and a content that counts.
        row["trade_id"] = str(n) if n % 3 else None
        row["occurrence"] = 0 if n % 3 == 2 or (n % 3 == 0 and n % 2) else None
        if not n % 4:
            row["ingestion_timestamp"] += timedelta(seconds=(n % 7) * 20)
    made = random_corrections(seed, corrections, rows)
    known_at = None if hours is None else MONDAY + timedelta(hours=hours)
    with TemporaryDirectory() as folder:
        *commits, tail = split(rows, cuts)
        *others, rest = split(made, [cut // 3 for cut in cuts])
        trades = view_of(Path(folder), "trades", commits, tail)
        beside = view_of(Path(folder), "corrections", others, rest)
        trades, beside = (replace(view, known_at=known_at) for view in (trades, beside))
        selection = Selection(chosen)
        view = corrected(engine, trades, beside, selection)
        bars = make_bars(engine, view, selection, BarsWanted(parse_interval("1h")))
        records, _ = fetch_records(engine, view, selection, Wanted())
    expected = sorted(stood(rows, made, known_at), key=order_of)
    expected = [row for row in expected if not chosen or row["symbol"] in chosen]
    assert bars.to_pylist() == reference.bars(expected, timedelta(hours=1))
    assert [
        tuple(r[n] for n in ("trade_id", "price", "quantity")) for r in records.to_pylist()
    ] == [tuple(r[n] for n in ("trade_id", "price", "quantity")) for r in expected]


def test_history_has_every_trade_and_what_became_of_it(engine: DuckDB, tmp_path: Path) -> None:
    rows = [trade("A", MONDAY, str(n + 1), offset=n, trade_id=str(n)) for n in range(4)]
    made = [
        about(rows[1], "BUST", TUESDAY),
        about(rows[2], "CORRECT", TUESDAY, offset=1, price=Decimal("7.5")),
    ]
    view = replace(view_of(tmp_path, "trades", [rows[:2]], rows[2:]), history=True)
    beside = view_of(tmp_path, "corrections", [made[:1]], made[1:])
    view = corrected(engine, view, beside, Selection())
    found = fetch_records(engine, view, Selection(), Wanted())[0].to_pylist()
    names = ("price", "correction", "corrected_at", "corrected_price", "corrected_quantity")
    assert [tuple(row[name] for name in names) for row in found] == [
        (Decimal(1), None, None, None, None),
        (Decimal(2), "BUST", TUESDAY, None, None),
        (Decimal(3), "CORRECT", TUESDAY, Decimal("7.5"), None),
        (Decimal(4), None, None, None, None),
    ]
    uncorrected = replace(view, corrections=None, standing=None)
    plain = fetch_records(engine, uncorrected, Selection(), Wanted())[0]
    assert plain["correction"].null_count == plain.num_rows == 4


def test_only_files_of_days_that_were_corrected_are_joined(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade(symbol, MONDAY + timedelta(days=n), "1", offset=n, trade_id=str(n))
        for n, symbol in enumerate(["A", "B", "A", "C"])
    ]
    view = view_of(tmp_path, "trades", [rows], [])
    beside = view_of(tmp_path, "corrections", [[about(rows[1], "BUST", LATER)]], [])
    found = corrected(engine, view, beside, Selection())
    standing = found.source(found.select()).standing
    assert standing is not None
    days = {file.path: file.exchange_date for file in found.select()}
    assert [days[path] for path in standing.files] == [rows[1]["exchange_date"]]
    elsewhere = corrected(engine, view, beside, Selection(("A",)))
    assert elsewhere.source(elsewhere.select(["A"])).standing is None


def test_where_no_file_can_be_about_it_none_is_read(engine: DuckDB, tmp_path: Path) -> None:
    rows = [trade("A", MONDAY, "1", trade_id="1")]
    view = view_of(tmp_path, "trades", [rows], [])
    beside = view_of(tmp_path, "corrections", [[about(rows[0], "BUST", LATER)]], [])
    for file in beside.select():
        Path(file.path).unlink()
    far = Selection(("A",), start=MONDAY + timedelta(days=9))
    assert corrected(engine, view, beside, far).standing is None
    assert corrected(engine, view, beside, Selection(("B",))).standing is None
    assert corrected(engine, view, beside, Selection(("A",)), date(2024, 3, 7)).standing is None


# ------------------------------------------------------------------ over log, tables and tail


class Corrected(Market):
    """A market whose trades are corrected, as feeds and a writer do."""

    def correct(self, *rows: Row) -> None:
        """Append corrections."""
        schema = latest("corrections").arrow
        plain = pa.schema(
            [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
        )
        found = [{name: row.get(name) for name in schema.names} for row in rows]
        table = pa.Table.from_pylist(found, plain).cast(schema)
        Producer(self.log, self.registry, 1).send(EXCHANGES["sim"], "corrections", table)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Corrected]:
    made = Corrected(tmp_path)
    made.append([trade("A", MONDAY + timedelta(seconds=n), str(n + 1)) for n in range(10)])
    made.commit()
    yield made
    made.close()


@pytest.fixture
def reader(market: Corrected) -> Iterator[Reader]:
    with open_reader(market.folder) as opened:
        yield opened


def prices(reader: Reader, **asked: Any) -> list[int]:
    return [
        int(p) for p in reader.records("trades", Selection(), **asked).table["price"].to_pylist()
    ]


def test_a_bust_counts_at_once_and_not_in_any_past(market: Corrected, reader: Reader) -> None:
    assert prices(reader) == [*range(1, 11)]
    assert reader.records("trades", Selection()).meta["corrections"] == 0
    assert "corrections" not in str(reader.records("trades", Selection()).meta["snapshots"])
    before = str(reader.snapshots().table["snapshot_id"][0])
    bust = about(market.appended[8], "BUST", TUESDAY)
    market.correct(bust)
    for _ in ("in the tail", "committed"):
        answer = reader.bars(Selection(("A",)), "1h")
        assert answer.meta["corrections"] == 1
        assert [str(v) for v in answer.table["volume"].to_pylist()] == ["9.00000000"]
        assert reader.sql("select count(*) as n from trades").table["n"].to_pylist() == [9]
        assert 9 not in prices(reader)
        day = market.appended[0]["exchange_date"]
        assert reader.summary("A", day).table["trade_count"].to_pylist() == [9]
        yesterday = (TUESDAY - timedelta(hours=1)).isoformat()
        pasts: list[dict[str, Any]] = [{"as_of": before}, {"as_known_at": yesterday}]
        for past in pasts:
            assert 9 in prices(reader, **past)
            bars = reader.bars(Selection(("A",)), "1h", **past)
            assert bars.table["trade_count"].to_pylist() == [10]
            assert bars.meta["corrections"] == 0
            summary = reader.summary("A", day, **past)
            assert summary.table["trade_count"].to_pylist() == [10]
            counted = reader.sql("select count(*) as n from trades", **past)
            assert counted.table["n"].to_pylist() == [10]
        assert 9 in prices(reader, history=True)
        market.commit()
    assert 9 not in prices(
        reader, as_of=str(reader.snapshots("corrections").table["snapshot_id"][0])
    )


def test_what_comes_twice_counts_once_and_what_comes_early_waits(
    market: Corrected, reader: Reader
) -> None:
    early = trade("A", MONDAY + timedelta(minutes=1), "99", offset=0)
    early["trade_id"] = "10"
    bust = about(early, "BUST", TUESDAY, occurrence=0)
    market.correct(bust)
    market.commit()
    market.correct(bust, bust)
    market.commit()
    found = reader.records("corrections", Selection()).table
    assert found["has_target"].to_pylist() == [False]
    assert reader.ledger("duplicates").table["kind"].to_pylist() == ["corrections"] * 2
    market.append([early])
    assert early["trade_id"] == "10"
    for _ in ("in the tail", "committed"):
        assert 99 not in prices(reader)
        found = reader.records("corrections", Selection()).table
        assert found["has_target"].to_pylist() == [True]
        market.commit()


def test_the_last_correction_stands_by_its_own_time(market: Corrected, reader: Reader) -> None:
    of = market.appended[4]
    hour = timedelta(hours=1)
    market.correct(about(of, "CORRECT", TUESDAY + 2 * hour, price=Decimal(70)))
    market.correct(about(of, "CORRECT", TUESDAY + hour, price=Decimal(60), quantity=Decimal(3)))
    row = reader.records("trades", Selection(("A",))).table.slice(4, 1).to_pylist()[0]
    assert (row["price"], row["quantity"]) == (70, 3)
    market.commit()
    market.correct(about(of, "BUST", TUESDAY + 3 * hour))
    assert prices(reader) == [1, 2, 3, 4, *range(6, 11)]
    between = (TUESDAY + 1.5 * hour).isoformat()
    assert prices(reader, as_known_at=between) == [1, 2, 3, 4, 60, *range(6, 11)]
    market.correct(about(of, "CORRECT", TUESDAY + 4 * hour, quantity=Decimal(2)))
    row = reader.records("trades", Selection(("A",))).table.slice(4, 1).to_pylist()[0]
    assert (row["price"], row["quantity"]) == (70, 2)


@pytest.mark.parametrize("past", [{}, {"as_known_at": LATER.isoformat()}, {"history": True}])
def test_pages_see_one_state_of_corrections(
    market: Corrected, reader: Reader, past: dict[str, Any]
) -> None:
    for first in (market.appended[1], None):
        answer = reader.records("trades", Selection(), limit=3, **past)
        seen = answer.table["price"].to_pylist()
        market.correct(about(market.appended[8], "BUST", TUESDAY, offset=len(seen)))
        market.commit()
        while answer.next is not None:
            answer = reader.records("trades", Selection(), limit=3, after=answer.next, **past)
            seen += answer.table["price"].to_pylist()
        expected = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
        if first is None and not past.get("history"):
            expected.remove(9)
        assert [int(price) for price in seen] == expected


def test_a_trade_that_was_known_late(market: Corrected, reader: Reader) -> None:
    late = trade("A", MONDAY, "50", source_received_timestamp=TUESDAY)
    live = trade("A", MONDAY, "51")
    market.append([late, live])
    live["ingestion_timestamp"] = MONDAY + timedelta(seconds=30)
    assert 50 in prices(reader)
    assert 50 not in prices(reader, as_known_at=(TUESDAY - timedelta(seconds=1)).isoformat())
    assert 50 in prices(reader, as_known_at=TUESDAY.isoformat())


def test_what_cannot_be_asked(market: Corrected, reader: Reader) -> None:
    with pytest.raises(BadInput, match="history"):
        reader.records("quotes", Selection(), history=True)
    with pytest.raises(BadInput, match="known"):
        reader.records("instruments", Selection(), as_known_at=MONDAY.isoformat())
    with pytest.raises(BadInput, match="no time"):
        prices(reader, as_known_at="yesterday")
    with pytest.raises(BadInput, match="yet to come"):
        prices(reader, as_known_at="2099-01-01T00:00:00Z")
    with pytest.raises(BadInput, match="ledgers"):
        reader.sql("select * from rejected", as_known_at=MONDAY.isoformat())
    with pytest.raises(NotFound):
        reader.records("correction", Selection())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"trade_id": None}, "trade_id  names no trade"),
        ({"target_offset": 3}, "trade_id 8 stands beside a place"),
        ({"trade_id": None, "target_offset": 3}, "target_offset 3 is one of three"),
        ({"action": "CORRECT"}, "action CORRECT needs a new price"),
        ({"price": Decimal(-1)}, "price -1 is not above zero"),
        ({"target_timestamp": TUESDAY + timedelta(days=1)}, "lies after its own correction"),
    ],
)
def test_a_correction_that_cannot_be_is_rejected(
    market: Corrected, reader: Reader, wrong: dict[str, Any], reason: str
) -> None:
    market.correct({**about(market.appended[8], "BUST", TUESDAY), **wrong})
    assert len(prices(reader)) == 10
    market.commit()
    (found,) = reader.ledger("rejected").table["reason"].to_pylist()
    assert reason in found
