"""Bars, measures and best quotes as questions to a home: corrections, gaps, history and tail."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.query import Reader, Selection, open_reader
from k2.query.aggregations import Measures, aggregate
from k2.query.corrections import corrected
from k2.query.counted import CountedWanted, make_counted, parse_size, settled
from k2.query.duckdb import DuckDB
from k2.query.interval import parse_interval
from k2.query.measured import BarsAsked, answer_bars
from k2.query.selection import Past
from tests.ingest.numbered import BEGAN, trades
from tests.journeys.home import Home, open_home
from tests.query import plain
from tests.query.make import Row, random_trades, split
from tests.query.test_corrections import MONDAY, random_corrections, stood, view_of
from tests.query.test_reader import NOW, Market

MINUTE = timedelta(minutes=1)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 60),
    corrections=st.integers(1, 30),
    cuts=st.lists(st.integers(0, 10**6), max_size=3),
    hours=st.none() | st.integers(0, 40),
    start=st.integers(0, 30),
)
def test_what_stands_is_measured(
    engine: DuckDB,
    seed: int,
    count: int,
    corrections: int,
    cuts: list[int],
    hours: int | None,
    start: int,
) -> None:
    rows = random_trades(seed, count, exchanges=("sim", "ASX"), span=timedelta(hours=30))
    for n, row in enumerate(rows):
        row["trade_id"] = str(n) if n % 2 else None
        row["occurrence"] = None if n % 2 else 0
    made = random_corrections(seed, corrections, rows)
    known_at = None if hours is None else MONDAY + timedelta(hours=hours)
    with TemporaryDirectory() as folder:
        *commits, tail = split(rows, cuts)
        *others, rest = split(made, [cut // 3 for cut in cuts])
        of_trades = view_of(Path(folder), "trades", commits, tail)
        beside = view_of(Path(folder), "corrections", others, rest)
        of_trades, beside = (replace(view, known_at=known_at) for view in (of_trades, beside))
        # What stood before the range is read as well, and as corrected.
        begin = MONDAY + timedelta(hours=start)
        selection = Selection(start=begin)
        view = corrected(engine, of_trades, beside, selection)
        wanted = CountedWanted(parse_size("tick", "4"))
        bars = settled(make_counted(engine, view, selection, wanted), [], view.exchanges)
        measures = Measures(("twap",), parse_interval("1h"))
        averages = aggregate(engine, view, selection, measures)
    left = stood(rows, made, known_at)
    assert bars.to_pylist() == plain.counted(left, "tick", "4", start=begin)
    assert averages.to_pylist() == plain.twap(left, timedelta(hours=1), start=begin)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


def as_logged(reader: Reader, as_of: str | None) -> list[Row]:
    names = ("symbol", "exchange", "timestamp", "timestamp_nanos", "price", "quantity")
    more = ("price_forming", "exchange_date", "log_topic", "log_partition", "log_offset")
    found = reader.records("trades", Selection(), fields=(*names, *more), as_of=as_of)
    rows: list[Row] = found.table.to_pylist()
    return rows


def test_history_and_tail_and_past_states(market: Market) -> None:
    rows = random_trades(1, 300, exchanges=("sim", "ASX"), span=timedelta(days=3), ties=3)
    rows.sort(key=lambda row: bool(row["timestamp_nanos"]))  # many come late
    with open_reader(market.folder, clock=lambda: NOW) as reader:
        for n in range(0, 300, 60):
            market.append(rows[n : n + 60])
            if n % 120 == 0:
                market.commit()
            check(reader, None)
        states = [row["snapshot_id"] for row in reader.snapshots().table.to_pylist()]
        assert len(states) == 3
        for state in states:
            check(reader, state)


def check(reader: Reader, as_of: str | None) -> None:
    rows = as_logged(reader, as_of)
    found = reader.bars(Selection(), "250000", kind="volume", as_of=as_of)
    assert found.table.to_pylist() == plain.counted(rows, "volume", "250000")
    measured = reader.aggregate(Selection(), ["twap"], "15m", as_of=as_of).table
    wanted = plain.twap(rows, 15 * MINUTE)
    assert measured.drop_columns("complete").to_pylist() == wanted
    assert found.meta["as_of"] == as_of
    assert found.meta["notes"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    monkeypatch.setattr("k2.query.gaps._AGAIN", 0.0)
    with open_home(tmp_path) as opened:
        yield opened


def test_an_interval_is_empty_or_nobody_knows(home: Home) -> None:
    # One a minute; between 3 and 6, from minute 2 to 4, two numbers are missing.
    for minute, numbers in {0: [1, 2], 2: [3], 4: [6], 7: [7]}.items():
        trades(home, numbers, at=60 * minute, happened=60 * minute)
    with open_reader(home.folder) as reader:

        def states(**more: Any) -> list[tuple[str, bool]]:
            found = reader.bars(Selection(("BTC",)), "1m", fill=True, **more).table
            return [(row["state"], row["complete"]) for row in found.to_pylist()]

        before = [("traded", True), ("empty", True)]
        after = [("empty", True), ("empty", True), ("traded", True)]
        unknown = [("traded", False), ("unknown", False), ("traded", False)]
        assert states() == [*before, *unknown, *after]
        assert states(consolidated=True) == states()
        assert states(last=4) == [unknown[-1], *after]
        assert "state" not in reader.bars(Selection(("BTC",)), "1m").table.column_names
        trades(home, [4, 5], at=480, happened=200)
        filled = [("traded", True), ("traded", True), ("traded", True)]
        assert states() == [*before, *filled, *after]


def test_a_gap_spoils_what_comes_after_it_that_day(home: Home) -> None:
    for minute, numbers in {0: [1, 2], 2: [3, 4], 4: [7], 7: [8, 9]}.items():
        trades(home, numbers, at=60 * minute, happened=60 * minute)
    trades(home, [10, 11], at=86_400, happened=86_400)
    with open_reader(home.folder) as reader:

        def complete(*, missing: bool = True, **range_: Any) -> list[bool]:
            selection = Selection(("BTC",), **range_)
            found = reader.bars(selection, "2", kind="tick")
            assert any("missing" in note for note in _notes(found.meta)) is missing
            return list(found.table["complete"].to_pylist())

        # Trades 1 and 2, 3 and 4 (the gap may begin with them), 7 and 8, 9; 10 and 11.
        assert complete() == [True, False, False, False, True]
        # A range that begins after the gap rests on it all the same.
        assert complete(start=BEGAN + 5 * MINUTE) == [False, True]
        assert complete(start=BEGAN + timedelta(days=1), missing=False) == [True]
        trades(home, [5, 6], at=90_000, happened=180)
        assert complete(missing=False) == [True, True, True, True, False, True]


def _notes(meta: dict[str, object]) -> list[str]:
    notes = meta["notes"]
    assert isinstance(notes, list)
    return notes


def test_what_cannot_be_asked(home: Home) -> None:
    trades(home, [1])
    asked = Selection(("BTC",))
    with open_reader(home.folder) as reader:
        with pytest.raises(BadInput, match="no such bars"):
            reader.bars(asked, "5", kind="renko")
        with pytest.raises(BadInput, match="take no fill"):
            reader.bars(asked, "5", kind="tick", fill=True)
        with pytest.raises(BadInput, match="take no consolidated"):
            reader.bars(asked, "5", kind="tick", consolidated=True)
        with pytest.raises(BadInput, match="no interval"):
            reader.aggregate(asked, ["vwap"], "5")
        with pytest.raises(BadInput, match="last must be"):
            reader.bars(asked, "5", kind="tick", last=0)
        with pytest.raises(BadInput, match="range of times is empty"):
            reader.bbo(Selection(("BTC",), start=BEGAN, end=BEGAN))
        far = datetime(1, 1, 2, tzinfo=UTC)
        assert reader.bars(Selection(("BTC",), start=far), "5", kind="tick").table.num_rows == 1
        assert reader.bbo(Selection(("BTC",), start=far)).table.num_rows == 0


def test_nothing_is_called_empty_while_shed_records_wait(home: Home) -> None:
    trades(home, [1, 2])
    trades(home, [3], at=180, happened=180)
    with open_reader(home.folder) as reader:
        view = replace(reader._view("trades", Past(), Selection()), shed=5)
        asking = replace(reader._asking, view=lambda kind, past, selection, *, page=None: view)
        asked = BarsAsked("1m", fill=True)
        answer = answer_bars(asking, Selection(("BTC",)), asked, Past())
        assert answer.table["state"].to_pylist() == ["traded", "unknown", "unknown", "traded"]
        assert any("left in the log under overload" in note for note in _notes(answer.meta))
