"""All records part by part are all records at once, however they lie in time."""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.lake import definition
from k2.query.digest import Digest
from k2.query.duckdb import DuckDB
from k2.query.parts import read_parts
from k2.query.port import LogRange, Pin
from k2.query.records import Wanted, fetch_records
from k2.query.selection import Selection
from k2.query.view import View
from k2.query.zones import to_us
from tests.query.make import Row, order_of, random_trades, split, trade, view_of

FIELDS = ("symbol", "price", "log_offset")
BEGIN = datetime(2024, 3, 4, 22, tzinfo=UTC)


def joined(engine: DuckDB, view: View, selection: Selection, rows: int) -> pa.Table:
    parts = list(read_parts(engine, view, selection, FIELDS, rows=rows))
    assert all(part.num_rows <= rows for part in parts)
    return pa.concat_tables(parts)


def whole(engine: DuckDB, view: View, selection: Selection) -> pa.Table:
    return fetch_records(engine, view, selection, Wanted(fields=FIELDS))[0]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    count=st.integers(0, 300),
    ties=st.sampled_from([1, 5, 300]),
    cuts=st.lists(st.integers(0, 300), max_size=4),
    rows=st.sampled_from([1, 7, 50, 1000]),
    selection=st.sampled_from(
        [
            Selection(),
            Selection(("A",)),
            Selection(("A", "NONE"), ("sim",)),
            Selection(start=BEGIN + timedelta(minutes=50), end=BEGIN + timedelta(minutes=130)),
        ]
    ),
    pinned=st.booleans(),
)
def test_parts_are_the_whole(
    engine: DuckDB,
    seed: int,
    count: int,
    ties: int,
    cuts: list[int],
    rows: int,
    selection: Selection,
    pinned: bool,
) -> None:
    trades = random_trades(seed, count, exchanges=("sim", "ASX"), ties=ties)
    *commits, tail = split(trades, cuts)
    with TemporaryDirectory() as folder:
        pin = Pin(max(len(commits) - 1, 0)) if pinned else None
        view = view_of(Path(folder), commits, tail, pin=pin)
        assert joined(engine, view, selection, rows).equals(whole(engine, view, selection))


def burst(count: int, when: datetime, first: int) -> list[Row]:
    return [trade("A", when, "1", offset=first + n) for n in range(count)]


def test_a_burst_is_read_in_several_goes(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        *burst(5, BEGIN, 0),
        *burst(400, BEGIN + timedelta(hours=5), 5),
        *burst(5, BEGIN + timedelta(days=300), 405),
    ]
    view = view_of(tmp_path, [rows])
    found = joined(engine, view, Selection(), 20)
    assert found["log_offset"].to_pylist() == [row["log_offset"] for row in rows]


def test_few_symbols_take_few_goes(
    engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trades = random_trades(1, 4000, symbols=[f"S{n}" for n in range(400)], ties=1)
    view = view_of(tmp_path, [trades])
    asked: list[object] = []
    run = engine.run

    def counted(*of: Any) -> pa.Table:
        asked.append(of)
        return run(*of)

    monkeypatch.setattr(engine, "run", counted)
    found = joined(engine, view, Selection(("S7",)), 20)
    assert len(asked) < 20
    assert found.num_rows == sum(row["symbol"] == "S7" for row in trades)


def test_it_begins_behind_a_row(engine: DuckDB, tmp_path: Path) -> None:
    trades = sorted(random_trades(5, 200, ties=40), key=order_of)
    view = view_of(tmp_path, [trades[:120]], trades[120:])
    for at in (0, 50, 199):
        time, *rest = order_of(trades[at])
        key = (to_us(time), *rest)
        parts = read_parts(engine, view, Selection(), FIELDS, after=key, rows=9)
        found = [offset for part in parts for offset in part["log_offset"].to_pylist()]
        assert found == [row["log_offset"] for row in trades[at + 1 :]]


def test_rows_of_a_topic_that_was_made_anew_have_an_order(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade("A", BEGIN, str(n), offset=0, log_id=log_id)
        for n, log_id in enumerate(["log-b", "log-a", "log-c"], 1)
    ]
    orders: Sequence[list[Row]] = [rows, rows[::-1], [rows[1], rows[0], rows[2]]]
    found = []
    for n, order in enumerate(orders):
        folder = tmp_path / str(n)
        folder.mkdir()
        view = view_of(folder, [[row] for row in order])
        found.append(joined(engine, view, Selection(), 1)["price"].to_pylist())
    assert [int(price) for price in found[0]] == [2, 1, 3]
    assert found[0] == found[1] == found[2]


def test_nothing_there_is_one_empty_part(engine: DuckDB, tmp_path: Path) -> None:
    view = view_of(tmp_path, [], pin=Pin(0, (LogRange("t", "l", 0, 0, 0),)))
    assert [part.num_rows for part in read_parts(engine, view, Selection(), FIELDS)] == [0]


def test_threads_and_parts_of_any_size_give_the_same_hash(tmp_path: Path) -> None:
    trades = random_trades(3, 5000, exchanges=("sim", "ASX"), ties=20)
    view = view_of(tmp_path, [trades[n::3] for n in range(3)])
    names = definition("trades").names[:-1]
    schema = pa.schema([view.columns.field(name) for name in names])
    found = set()
    for threads, rows in ((1, 10_000), (4, 10_000), (4, 700), (1, 333)):
        with closing(DuckDB(threads=threads, memory=200 << 20)) as engine:
            digest = Digest(schema)
            for part in read_parts(engine, view, Selection(), names, rows=rows):
                digest.update(part)
        found.add((digest.rows, digest.hexdigest()))
    assert len(found) == 1
    assert found.pop()[0] == 5000
