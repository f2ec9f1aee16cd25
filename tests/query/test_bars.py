from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput, Refused
from k2.query.bars import BarsWanted, make_bars
from k2.query.duckdb import DuckDB
from k2.query.fill import SCHEMA
from k2.query.interval import parse_interval
from k2.query.selection import Selection
from tests.query import reference
from tests.query.make import order_of, random_trades, split, trade, view_of

INTERVALS = {
    "1s": timedelta(seconds=1),
    "1m": timedelta(minutes=1),
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
}


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 120),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    interval=st.sampled_from(sorted(INTERVALS)),
    ties=st.sampled_from([1, 5, 50]),
    all_trades=st.booleans(),
    partitions=st.integers(1, 2),
)
def test_bars_equal_a_plain_reference_however_rows_are_split(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    interval: str,
    ties: int,
    all_trades: bool,
    partitions: int,
) -> None:
    rows = random_trades(
        seed, count, exchanges=("sim", "ASX", "NYSE"), ties=ties, partitions=partitions
    )
    *commits, tail = split(rows, cuts)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        wanted = BarsWanted(parse_interval(interval), all_trades=all_trades)
        made = make_bars(engine, view, Selection(), wanted)
    assert made.schema == SCHEMA
    assert made.to_pylist() == reference.bars(rows, INTERVALS[interval], all_trades=all_trades)


@pytest.mark.parametrize(
    ("exchange", "day"),
    [
        ("ASX", date(2024, 4, 7)),  # 25 hours
        ("ASX", date(2024, 10, 6)),  # 23 hours
        ("NYSE", date(2024, 3, 10)),
        ("NYSE", date(2024, 11, 3)),
    ],
)
@pytest.mark.parametrize("interval", ["30m", "1h", "4h", "12h", "1d"])
def test_bars_on_days_when_clocks_change(
    engine: DuckDB, tmp_path: Path, exchange: str, day: date, interval: str
) -> None:
    start = datetime.combine(day, datetime.min.time(), UTC) - timedelta(hours=30)
    rows = [
        trade("A", start + n * timedelta(minutes=7), str(n + 1), exchange=exchange, offset=n)
        for n in range(700)
    ]
    view = view_of(tmp_path, [rows[:400]], rows[400:])
    made = make_bars(engine, view, Selection(("A",)), BarsWanted(parse_interval(interval)))
    width = timedelta(microseconds=parse_interval(interval).width_us)
    assert made.to_pylist() == reference.bars(rows, width)


def test_a_day_bar_begins_at_midnight_where_it_is_traded(engine: DuckDB, tmp_path: Path) -> None:
    rows = [trade("A", datetime(2024, 3, 4, 23, tzinfo=UTC), "1", exchange="ASX")]
    made = make_bars(
        engine, view_of(tmp_path, [rows]), Selection(("A",)), BarsWanted(parse_interval("1d"))
    )
    assert made["start"].to_pylist() == [datetime(2024, 3, 4, 13, tzinfo=UTC)]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), last=st.integers(1, 40), some=st.booleans())
def test_newest_bars_are_the_tail_of_all(engine: DuckDB, seed: int, last: int, some: bool) -> None:
    # One symbol is traded long before the others only.
    old = random_trades(seed, 30, symbols=("old",), start=datetime(2020, 1, 1, tzinfo=UTC), ties=1)
    rows = old + random_trades(
        seed, 300, symbols=("A", "B"), exchanges=("sim", "ASX"), span=timedelta(days=4), ties=1
    )
    selection = Selection(("A", "old") if some else ())
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), [rows[:100], rows[100:250]], rows[250:])
        made = make_bars(engine, view, selection, BarsWanted(parse_interval("5m"), last=last))
    mine = [row for row in rows if not some or row["symbol"] != "B"]
    expected = []
    groups: dict[tuple[str, str], list[dict[str, object]]] = {}
    for bar in reference.bars(mine, timedelta(minutes=5)):
        groups.setdefault((bar["symbol"], bar["exchange"]), []).append(bar)
    for group in groups.values():
        expected += group[-last:]
    assert made.to_pylist() == expected


def test_empty_intervals_are_shown_on_request(engine: DuckDB, tmp_path: Path) -> None:
    at = datetime(2024, 3, 4, tzinfo=UTC)
    rows = [
        trade("A", at + timedelta(minutes=1), "1", offset=0),
        trade("A", at + timedelta(minutes=4), "2", offset=1),
        trade("B", at + timedelta(minutes=9), "3", offset=2),
    ]
    view = view_of(tmp_path, [rows])
    wanted = BarsWanted(parse_interval("1m"), fill=True)
    made = make_bars(engine, view, Selection(("A",)), wanted)
    assert made.schema == SCHEMA
    assert [s.minute for s in made["start"].to_pylist()] == [1, 2, 3, 4]
    assert made["trade_count"].to_pylist() == [1, 0, 0, 1]
    assert made["volume"].to_pylist() == [Decimal(1), 0, 0, Decimal(1)]
    assert made["open"].to_pylist() == [Decimal(1), None, None, Decimal(2)]
    # A range that is asked for is filled to its ends, but no further than there is data.
    ranged = Selection(("A",), start=at, end=at + timedelta(minutes=7))
    made = make_bars(engine, view, ranged, wanted)
    assert [s.minute for s in made["start"].to_pylist()] == [0, 1, 2, 3, 4, 5, 6]
    made = make_bars(engine, view, Selection(("A",), start=at, end=at + timedelta(days=9)), wanted)
    assert made.num_rows == 10
    newest = BarsWanted(parse_interval("1m"), fill=True, last=2)
    made = make_bars(engine, view, Selection(("A",)), newest)
    assert made["trade_count"].to_pylist() == [0, 1]


def test_days_are_filled_one_each_when_clocks_change(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade("A", datetime(2024, 4, 1, tzinfo=UTC), "1", exchange="ASX"),
        trade("A", datetime(2024, 4, 10, tzinfo=UTC), "1", exchange="ASX", offset=1),
    ]
    wanted = BarsWanted(parse_interval("1d"), fill=True)
    made = make_bars(engine, view_of(tmp_path, [rows]), Selection(), wanted)
    assert made.num_rows == 10
    assert sum(made["trade_count"].to_pylist()) == 2


def test_too_many_empty_intervals_are_refused(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade("A", datetime(2024, 1, 1, tzinfo=UTC), "1"),
        trade("A", datetime(2024, 1, 13, tzinfo=UTC), "1", offset=1),
    ]
    with pytest.raises(Refused, match="most of them empty"):
        make_bars(
            engine,
            view_of(tmp_path, [rows]),
            Selection(),
            BarsWanted(parse_interval("1s"), fill=True),
        )


def test_vwap_is_rounded_half_even_from_exact_sums(engine: DuckDB, tmp_path: Path) -> None:
    at = datetime(2024, 3, 4, tzinfo=UTC)
    pairs = [("1.00000001", "1"), ("1.00000002", "1"), ("1.00000002", "1"), ("1.00000003", "1")]
    rows = [
        trade("A", at + timedelta(minutes=n // 2), price, quantity, offset=n)
        for n, (price, quantity) in enumerate(pairs)
    ]
    huge = [
        trade("B", at, "9999999999.99999999", "9999999999.99999999", offset=9),
        trade("B", at, "-0.00000001", "0.00000001", offset=10),
    ]
    made = make_bars(
        engine, view_of(tmp_path, [rows + huge]), Selection(), BarsWanted(parse_interval("1m"))
    )
    # 1.000000015 and 1.000000025 both round to the even neighbour.
    assert made["vwap"].to_pylist()[:2] == [Decimal("1.00000002")] * 2
    assert made.to_pylist() == reference.bars(rows + huge, timedelta(minutes=1))


def test_order_decides_open_and_close_at_equal_times(engine: DuckDB, tmp_path: Path) -> None:
    at = datetime(2024, 3, 4, tzinfo=UTC)
    rows = [
        trade("A", at, "5", offset=7, partition=1),
        trade("A", at, "3", offset=9, partition=0),
        trade("A", at, "2", offset=8, partition=0),
        trade("A", at, "9", offset=1, partition=0, timestamp_nanos=5),
        trade("A", at, "1", offset=2, partition=1, timestamp_nanos=5),
    ]
    made = make_bars(
        engine, view_of(tmp_path, [rows]), Selection(), BarsWanted(parse_interval("1m"))
    )
    ordered = sorted(rows, key=order_of)
    assert made["open"].to_pylist() == [ordered[0]["price"]] == [Decimal(2)]
    assert made["close"].to_pylist() == [ordered[-1]["price"]] == [Decimal(1)]


@pytest.mark.parametrize(
    "text", ["", "1", "m", "0m", "7m", "25h", "2d", "1w", "-1m", "1.5h", "１m"]
)
def test_intervals_that_do_not_divide_a_day_are_refused(text: str) -> None:
    with pytest.raises(BadInput, match="no interval"):
        parse_interval(text)
