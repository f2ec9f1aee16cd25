from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.query.bars import BarsWanted, make_bars
from k2.query.consolidated import SCHEMA, make_consolidated
from k2.query.duckdb import DuckDB
from k2.query.interval import parse_interval
from k2.query.selection import Selection
from tests.query import plain
from tests.query.make import DAWN, Row, random_trades, split, trade, view_of

AT = datetime(2024, 3, 4, tzinfo=UTC)
INTERVALS = {
    "1s": timedelta(seconds=1),
    "1m": timedelta(minutes=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
}


def in_utc(rows: list[Row], interval: str) -> list[dict[str, Any]]:
    """Bars of all exchanges that are in several zones."""
    width = INTERVALS[interval]
    found = []
    for (symbol,), trades in plain.grouped(rows, "symbol"):
        intervals: dict[datetime, list[Row]] = {}
        for row in trades:
            start = DAWN + (row["timestamp"] - DAWN) // width * width
            if interval == "1d":
                start = datetime.combine(row["exchange_date"], datetime.min.time(), UTC)
            intervals.setdefault(start, []).append(row)
        found += [
            {
                "symbol": symbol,
                "exchange": "*",
                "start": start,
                **plain.measured(group),
                "exchanges": ",".join(sorted({row["exchange"] for row in group})),
            }
            for start, group in sorted(intervals.items())
        ]
    return found


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(2, 150),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    interval=st.sampled_from(sorted(INTERVALS)),
    ties=st.sampled_from([1, 5, 50]),
    last=st.none() | st.integers(1, 40),
)
def test_bars_over_zones_equal_a_plain_reference(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    interval: str,
    ties: int,
    last: int | None,
) -> None:
    rows = random_trades(
        seed, count, exchanges=("sim", "ASX", "NYSE"), span=timedelta(days=6), ties=ties
    )
    # Of two zones at least.
    rows += [trade("Z", AT, "1", exchange=name, offset=9_000) for name in ("sim", "ASX")]
    *commits, tail = split(rows, cuts)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        wanted = BarsWanted(parse_interval(interval), last=last)
        made = make_consolidated(engine, view, Selection(), wanted)
    assert made.schema == SCHEMA
    groups: dict[str, list[dict[str, Any]]] = {}
    for bar in in_utc(rows, interval):
        groups.setdefault(bar["symbol"], []).append(bar)
    assert made.to_pylist() == [
        bar for group in groups.values() for bar in group[-(last or 9999) :]
    ]


@pytest.mark.parametrize("interval", ["30m", "4h", "1d"])
def test_one_exchange_alone_is_what_its_own_bars_are(
    engine: DuckDB, tmp_path: Path, interval: str
) -> None:
    # Clocks change on April 7th.
    begin = datetime(2024, 4, 5, tzinfo=UTC)
    rows = random_trades(3, 300, exchanges=("ASX",), start=begin, span=timedelta(days=4), ties=1)
    view = view_of(tmp_path, [rows[:150]], rows[150:])
    wanted = BarsWanted(parse_interval(interval), fill=True)
    mine = make_bars(engine, view, Selection(), wanted)
    made = make_consolidated(engine, view, Selection(), wanted)
    assert made.drop_columns(["exchange", "exchanges"]).equals(mine.drop_columns("exchange"))
    assert set(made["exchanges"].to_pylist()) - {None} == {"ASX"}


def test_first_and_last_go_by_the_order_over_exchanges(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade("A", AT, "1", exchange="sim", offset=0),  # topic market.crypto.trades.sim
        trade("A", AT, "2", exchange="ASX", offset=5),  # topic market.equities.trades.ASX
        trade("A", AT, "3", exchange="sim", offset=9, timestamp_nanos=1),
        trade("A", AT, "4", exchange="ASX", offset=1, timestamp_nanos=1),
    ]
    view = view_of(tmp_path, [rows[2:]], rows[:2])
    made = make_consolidated(engine, view, Selection(), BarsWanted(parse_interval("1m")))
    (bar,) = made.to_pylist()
    assert (bar["open"], bar["close"], bar["volume"]) == (Decimal(1), Decimal(4), Decimal(4))
    assert (bar["exchange"], bar["exchanges"]) == ("*", "ASX,sim")
    one = make_consolidated(
        engine, view, Selection(exchanges=("sim",)), BarsWanted(parse_interval("1m"))
    )
    assert one["exchanges"].to_pylist() == ["sim"]
    none = make_consolidated(
        engine, view, Selection(exchanges=("LSE",)), BarsWanted(parse_interval("1m"), last=1)
    )
    assert none.num_rows == 0
