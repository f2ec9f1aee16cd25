from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.query import profile, twap
from k2.query.aggregations import METRICS, Measures, aggregate, check_metrics
from k2.query.duckdb import DuckDB
from k2.query.frame import Framing
from k2.query.interval import parse_interval
from k2.query.profile import make_profile, parse_bin
from k2.query.selection import Selection
from k2.query.twap import make_twap
from tests.query import plain, reference
from tests.query.make import EXCHANGES, random_trades, split, trade, view_of

INTERVALS = {
    "1s": timedelta(seconds=1),
    "15m": timedelta(minutes=15),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
}
AT = datetime(2024, 3, 4, tzinfo=UTC)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 120),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    interval=st.sampled_from(sorted(INTERVALS)),
    ties=st.sampled_from([1, 5, 50]),
    partitions=st.integers(1, 2),
    begin=st.sampled_from(
        [datetime(2024, 3, 8, tzinfo=UTC), datetime(2024, 11, 1, 20, tzinfo=UTC)]
    ),
    edges=st.tuples(st.integers(0, 3_000), st.integers(1, 3_000)),
)
def test_averages_over_time_equal_a_plain_reference(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    interval: str,
    ties: int,
    partitions: int,
    begin: datetime,
    edges: tuple[int, int],
) -> None:
    # Clocks change within these days, at two of the exchanges.
    rows = random_trades(
        seed,
        count,
        exchanges=("sim", "NYSE", "CME"),
        start=begin,
        span=timedelta(days=4),
        ties=ties,
        partitions=partitions,
    )
    *commits, tail = split(rows, cuts)
    start = begin + timedelta(minutes=edges[0])
    end = start + timedelta(minutes=edges[1])
    width = parse_interval(interval)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        whole = make_twap(engine, view, Selection(), width, all_trades=False)
        ranged = Selection(start=start, end=end)
        part = make_twap(engine, view, ranged, width, all_trades=False)
    assert whole.schema == twap.SCHEMA
    assert whole.to_pylist() == plain.twap(rows, INTERVALS[interval])
    assert part.to_pylist() == plain.twap(rows, INTERVALS[interval], start=start, end=end)


def test_a_price_counts_for_as_long_as_it_stood(engine: DuckDB, tmp_path: Path) -> None:
    minute = timedelta(minutes=1)
    rows = [
        trade("A", AT + minute / 2, "10", offset=0),  # half a minute to the interval's end
        trade("A", AT + 3 * minute + minute / 4, "30", offset=1),  # 10 for a quarter before it
        trade("A", AT + 3 * minute + minute / 2, "99", offset=2, price_forming=False),
        trade("A", AT + 3 * minute + 3 * minute / 4, "50", offset=3),
        trade("A", AT + 3 * minute + 3 * minute / 4, "70", offset=4),  # stands, the last of two
    ]
    view = view_of(tmp_path, [rows[:2]], rows[2:])

    def averages(selection: Selection) -> list[Decimal]:
        found = make_twap(engine, view, selection, parse_interval("1m"), all_trades=False)
        return list(found["twap"].to_pylist())

    assert averages(Selection()) == [Decimal(10), Decimal(35)]
    # What stood before the range is known; what comes after it is not.
    late = AT + 3 * minute + minute / 8
    assert averages(Selection(start=late)) == [Decimal("38.57142857")]
    soon = AT + 3 * minute + minute / 2
    assert averages(Selection(start=late, end=soon)) == [Decimal("23.33333333")]
    assert averages(Selection(start=AT + 4 * minute)) == []


def test_a_price_does_not_stand_overnight(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade("A", AT + timedelta(hours=23), "10", offset=0),
        trade("A", AT + timedelta(hours=24, minutes=30), "20", offset=1),
    ]
    view = view_of(tmp_path, [rows])
    found = make_twap(engine, view, Selection(), parse_interval("1h"), all_trades=False)
    assert found["twap"].to_pylist() == [Decimal(10), Decimal(20)]


def test_averages_are_rounded_half_even(engine: DuckDB, tmp_path: Path) -> None:
    second = timedelta(seconds=1)
    prices = ["1.00000001", "1.00000002", "1.00000002", "1.00000003"]
    rows = [trade("A", AT + n * second, price, offset=n) for n, price in enumerate(prices)]
    view = view_of(tmp_path, [rows])
    found = make_twap(engine, view, Selection(), parse_interval("2s"), all_trades=False)
    assert found["twap"].to_pylist() == [Decimal("1.00000002")] * 2
    most = Decimal("9999999999.99999999")
    huge = [trade("B", AT + n * second, most, offset=n) for n in range(3)]
    view = view_of(tmp_path, [huge])
    found = make_twap(engine, view, Selection(), parse_interval("1d"), all_trades=False)
    assert found["twap"].to_pylist() == [most]


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 120),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    interval=st.sampled_from(sorted(INTERVALS)),
    bin_size=st.sampled_from([None, "0.00000003", "1", "250"]),
)
def test_profiles_equal_a_plain_reference(
    engine: DuckDB, seed: int, count: int, cuts: list[int], interval: str, bin_size: str | None
) -> None:
    rows = random_trades(seed, count, exchanges=("sim", "ASX"), ties=5)
    *commits, tail = split(rows, cuts)
    width = None if bin_size is None else parse_bin(bin_size)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        framing = Framing(parse_interval(interval))
        found = make_profile(engine, view, Selection(), framing, width)
    assert found.schema == profile.SCHEMA
    assert found.to_pylist() == plain.profile(rows, INTERVALS[interval], width)


def test_levels_below_zero_go_down(engine: DuckDB, tmp_path: Path) -> None:
    rows = [trade("A", AT, price, offset=n) for n, price in enumerate(("-1", "-0.5", "0", "0.5"))]
    framing = Framing(parse_interval("1d"))
    view = view_of(tmp_path, [rows])
    found = make_profile(engine, view, Selection(), framing, parse_bin("1"))
    levels = found["volume_profile"].to_pylist()[0]
    assert [(level["price"], level["trade_count"]) for level in levels] == [(-1, 2), (0, 2)]


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    metrics=st.lists(st.sampled_from(sorted(METRICS)), min_size=1, unique=True),
    interval=st.sampled_from(sorted(INTERVALS)),
    all_trades=st.booleans(),
    hours=st.tuples(st.integers(0, 30), st.integers(1, 30)),
)
def test_measures_stand_side_by_side(
    engine: DuckDB,
    seed: int,
    metrics: list[str],
    interval: str,
    all_trades: bool,
    hours: tuple[int, int],
) -> None:
    rows = random_trades(seed, 100, exchanges=("sim", "ASX"), span=timedelta(days=2), ties=2)
    if all_trades:
        rows = [{**row, "price_forming": False} for row in rows]
    start = datetime(2024, 3, 4, 22, tzinfo=UTC) + timedelta(hours=hours[0])
    end = start + timedelta(hours=hours[1])
    wanted = Measures(check_metrics(tuple(metrics)), parse_interval(interval), all_trades)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), [rows[:50]], rows[50:])
        found = aggregate(engine, view, Selection(start=start, end=end), wanted)
    every = [{**row, "price_forming": True} for row in rows] if all_trades else rows
    inside = [row for row in every if start <= row["timestamp"] < end]
    width = INTERVALS[interval]
    parts = zip(
        reference.bars(inside, width),
        plain.twap(every, width, start=start, end=end),
        plain.profile(inside, width, None),
        strict=True,
    )
    names = found.column_names
    assert names[:3] == ["symbol", "exchange", "start"]
    assert names[3:] == [n for m in METRICS if m in metrics for n in METRICS[m]]
    rows_wanted = [{**bar, **average, **levels} for bar, average, levels in parts]
    assert found.to_pylist() == [{name: row[name] for name in names} for row in rows_wanted]


def test_nothing_gives_no_measures(engine: DuckDB, tmp_path: Path) -> None:
    every = Measures(tuple(METRICS), parse_interval("1h"))
    view = view_of(tmp_path, [[trade("A", AT, "1")]])
    empty = view_of(tmp_path, [], exchanges={"sim": EXCHANGES["sim"]})
    for state, selection in (
        (view, Selection(("B",))),
        (view, Selection(start=date(2030, 1, 1))),
        (empty, Selection()),
    ):
        assert aggregate(engine, state, selection, every).num_rows == 0


def test_what_cannot_be_measured() -> None:
    with pytest.raises(BadInput, match="no such metric") as told:
        check_metrics(("vwap", "median"))
    assert told.value.found == "median"
    with pytest.raises(BadInput, match="no metric"):
        check_metrics(())
    for text in ("0", "-1", "1e3", "0.000000001", "x", "12345678901"):
        with pytest.raises(BadInput, match="price bins"):
            parse_bin(text)
