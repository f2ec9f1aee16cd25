"""Spreads and markouts against a plain reference: Decimals, row by row, moment by moment."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Context, Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.model import Exchange
from k2.query import JoinWanted, Rule, Selection
from k2.query.duckdb import DuckDB
from k2.query.interval import parse_interval
from k2.query.markouts import MARKOUTS, MarkoutsWanted, make_markouts
from k2.query.middles import Market, Measuring
from k2.query.spreads import SPREADS, SpreadsWanted, make_spreads
from k2.query.times import parse_span, to_span
from tests.query.joined import DAWN, MICROSECOND, quote, random_records, stood
from tests.query.make import EXCHANGES, Row, order_of, split, trade
from tests.query.reference import quotient, start_of
from tests.query.test_corrections import view_of

EXACT = Context(prec=200)
SECOND = timedelta(seconds=1)
LATER = Rule(look_ahead=True)
WIDTHS = {"1m": timedelta(minutes=1), "15m": timedelta(minutes=15), "1h": timedelta(hours=1)}
Pair = tuple[str, str]


def mean(samples: Sequence[tuple[Decimal, Decimal]], divisor: int = 1) -> Decimal | None:
    total, weight = Decimal(0), Decimal(0)
    for value, of in samples:
        total = EXACT.add(total, EXACT.multiply(value, of))
        weight = EXACT.add(weight, of)
    return quotient(total, weight * divisor) if weight else None


def middle(row: Row | None) -> Decimal | None:
    """Twice the middle."""
    if row is None or row["bid_price"] is None or row["ask_price"] is None:
        return None
    found: Decimal = row["bid_price"] + row["ask_price"]
    return found


def sign(row: Row) -> int:
    return {"BUY": 1, "SELL": -1, "SELL_SHORT": -1}.get(row["side"], 0)


def beside(row: Row, quotes: Sequence[Row], how: Measuring) -> Decimal | None:
    return middle(stood(row, quotes, JoinWanted(rule=how.rule, max_age=how.max_age)))


def afterwards(
    row: Row, quotes: Sequence[Row], how: Measuring, horizon: timedelta, held: datetime
) -> Decimal | None:
    when = row["timestamp"] + horizon
    if when > held:
        return None
    return beside({**row, "timestamp": when}, quotes, replace(how, rule=LATER))


def pair_of(row: Row) -> Pair:
    return row["symbol"], row["exchange"]


def spreads(
    trades: Sequence[Row],
    quotes: Sequence[Row],
    wanted: SpreadsWanted,
    width: timedelta,
    asked: tuple[datetime | None, datetime | None],
) -> list[dict[str, Any]]:
    held = newest(trades, quotes)
    trades = [row for row in trades if wanted.how.all_trades or row["price_forming"]]
    low, high = asked
    there = [row for row in (*trades, *quotes) if within(row, low, high)]
    found = []
    for (symbol, exchange), start in sorted({(pair_of(r), start_of(r, width)) for r in there}):
        mine = [row for row in quotes if pair_of(row) == (symbol, exchange)]
        begin = start if low is None else max(start, low)
        end = min(t for t in (start + width, high, held) if t is not None)
        before = [row for row in mine if row["timestamp"] < begin]
        inside = [row for row in mine if begin <= row["timestamp"] < (high or held + SECOND)]
        inside = [row for row in inside if start_of(row, width) == start]
        moments = [(begin, max(before, key=order_of, default=None))]
        moments += [(row["timestamp"], row) for row in sorted(inside, key=order_of)]
        samples = []
        edges = [*(at for at, _ in moments[1:]), end]
        for (at, row), until in zip(moments, edges, strict=True):
            stands = (min(until, end) - at) // MICROSECOND
            if stands > 0 and row is not None and middle(row) is not None:
                spread = row["ask_price"] - row["bid_price"]
                samples.append((spread, Decimal(stands).scaleb(-6)))
        paid, earned = [], []
        for row in trades:
            if pair_of(row) != (symbol, exchange) or start_of(row, width) != start:
                continue
            if not within(row, low, high):
                continue
            if (now := beside(row, mine, wanted.how)) is not None:
                paid.append((abs(2 * row["price"] - now), row["quantity"]))
            later = afterwards(row, mine, wanted.how, wanted.horizon, held)
            if later is not None and sign(row):
                earned.append((sign(row) * (2 * row["price"] - later), row["quantity"]))
        found.append(
            {
                "symbol": symbol,
                "exchange": exchange,
                "start": start,
                "quoted_spread": mean(samples),
                "quoted_seconds": sum((of for _, of in samples), Decimal(0)) or None,
                "effective_spread": mean(paid),
                "realised_spread": mean(earned),
                "volume": sum((of for _, of in paid), Decimal(0)) or None,
                "trade_count": len(paid),
            }
        )
    return found


def newest(*kinds: Sequence[Row]) -> datetime:
    """The newest time of which anything is known."""
    found: datetime = max(row["timestamp"] for rows in kinds for row in rows)
    return found


def within(row: Row, low: datetime | None, high: datetime | None) -> bool:
    return (low is None or row["timestamp"] >= low) and (high is None or row["timestamp"] < high)


def market_of(
    engine: DuckDB, folder: Path, trades: list[Row], quotes: list[Row], cuts: Sequence[int] = ()
) -> Market:
    views = []
    for kind, rows in (("trades", trades), ("quotes", quotes)):
        *commits, tail = split(rows, cuts)
        views.append(view_of(folder, kind, commits, tail))
    return Market(engine, *views)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    counts=st.tuples(st.integers(1, 60), st.integers(1, 90)),
    cuts=st.lists(st.integers(0, 10**6), max_size=2),
    interval=st.sampled_from(sorted(WIDTHS)),
    horizon=st.sampled_from(["1s", "5m", "3h"]),
    rule=st.sampled_from([Rule(), Rule(strict=True), LATER]),
    minutes=st.sampled_from([None, 6]),
    edges=st.sampled_from([(None, None), (17, 95), (None, 61), (29, None)]),
    all_trades=st.booleans(),
)
def test_spreads_equal_a_plain_reference(
    engine: DuckDB,
    seed: int,
    counts: tuple[int, int],
    cuts: list[int],
    interval: str,
    horizon: str,
    rule: Rule,
    minutes: int | None,
    edges: tuple[int | None, int | None],
    all_trades: bool,
) -> None:
    trades, quotes = (
        random_records(kind, seed, count, symbols=("A", "B"), exchanges=("sim", "ASX"))
        for kind, count in zip(("trades", "quotes"), counts, strict=True)
    )
    for n, row in enumerate(trades):
        row["price_forming"] = bool(n % 5)
    age = None if minutes is None else timedelta(minutes=minutes)
    how = Measuring(rule, age, all_trades)
    wanted = SpreadsWanted(parse_interval(interval), parse_span(horizon), how)
    low, high = (None if e is None else DAWN + e * timedelta(seconds=61) for e in edges)
    with TemporaryDirectory() as folder:
        market = market_of(engine, Path(folder), trades, quotes, cuts)
        made = make_spreads(market, Selection(start=low, end=high), wanted)
    assert made.table.schema == SPREADS
    assert made.table.to_pylist() == spreads(trades, quotes, wanted, WIDTHS[interval], (low, high))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    counts=st.tuples(st.integers(1, 60), st.integers(0, 90)),
    cuts=st.lists(st.integers(0, 10**6), max_size=2),
    rule=st.sampled_from([Rule(), Rule(strict=True), LATER]),
    minutes=st.sampled_from([None, 6]),
)
def test_markouts_equal_a_plain_reference(
    engine: DuckDB,
    seed: int,
    counts: tuple[int, int],
    cuts: list[int],
    rule: Rule,
    minutes: int | None,
) -> None:
    trades, quotes = (
        random_records(kind, seed, count, symbols=("A", "B"), exchanges=("sim", "ASX"))
        for kind, count in zip(("trades", "quotes"), counts, strict=True)
    )
    age = None if minutes is None else timedelta(minutes=minutes)
    how = Measuring(rule, age)
    horizons = ("0s", "1s", "5m", "2h")
    wanted = MarkoutsWanted(tuple(map(parse_span, horizons)), how)
    with TemporaryDirectory() as folder:
        market = market_of(engine, Path(folder), trades, quotes, cuts)
        made = make_markouts(market, Selection(), wanted)
    assert made.table.schema == MARKOUTS
    held = newest(trades, quotes)
    found = []
    for pair in sorted({pair_of(row) for row in trades}):
        mine = [row for row in quotes if pair_of(row) == pair]
        for side, turn in (("BUY", 1), ("SELL", -1)):
            for name, horizon in zip(horizons, wanted.horizons, strict=True):
                samples = []
                for row in trades:
                    if pair_of(row) != pair or sign(row) != turn:
                        continue
                    now = beside(row, mine, how)
                    later = afterwards(row, mine, how, horizon, held)
                    if now is not None and later is not None:
                        samples.append((turn * (later - now), row["quantity"]))
                if samples:
                    volume = sum((of for _, of in samples), Decimal(0))
                    found.append((*pair, side, name, mean(samples, 2), volume, len(samples)))
    assert [tuple(row.values()) for row in made.table.to_pylist()] == found
    assert made.sideless == sum(not sign(row) for row in trades)


def test_a_quoted_spread_is_weighted_by_time(engine: DuckDB, tmp_path: Path) -> None:
    """0.10 for 15 s from before, 0.20 for 30 s, one side empty for 5 s, 0.40 for the last 10 s."""
    minute = DAWN + timedelta(minutes=1)
    quotes = [
        quote("A", DAWN, "9.90", "10.00", offset=0),
        quote("A", minute + 15 * SECOND, "9.80", "10.00", offset=1),
        quote("A", minute + 45 * SECOND, "9.80", None, offset=2),
        quote("A", minute + 50 * SECOND, "9.60", "10.00", offset=3),
        quote("A", minute + 3600 * SECOND, "1", "2", offset=4),
    ]
    trades = [
        trade("A", minute + 20 * SECOND, "10.00", "3", offset=0),
        trade("A", minute + 48 * SECOND, "10.00", "9", offset=1),
        trade("A", minute + 55 * SECOND, "9.60", "1", offset=2, side="SELL"),
        trade("A", minute + 80 * SECOND, "9.70", "1", offset=3, side="SELL"),
    ]
    market = market_of(engine, tmp_path, trades, quotes)
    wanted = SpreadsWanted(parse_interval("1m"), 30 * SECOND)
    made = make_spreads(market, Selection(("A",), start=minute, end=minute + 120 * SECOND), wanted)
    assert made.left_out == 1
    first, second = made.table.to_pylist()
    assert first["quoted_seconds"] == Decimal(55)
    assert first["quoted_spread"] == quotient(Decimal("11.5"), Decimal(55))
    # 2 * |10.00 - 9.90| for 3, 2 * |9.60 - 9.80| for 1.
    assert first["effective_spread"] == quotient(Decimal("1.0"), Decimal(4))
    assert (first["volume"], first["trade_count"]) == (Decimal(4), 2)
    # Half a minute on, the middle is 9.80 each time: 0.40 for 3, 0.40 for 9 and 0.40 for 1.
    assert first["realised_spread"] == Decimal("0.4")
    # Nothing was quoted in the second minute: what stood before it stands all through.
    assert (second["quoted_seconds"], second["quoted_spread"]) == (Decimal(60), Decimal("0.4"))
    assert second["effective_spread"] == Decimal("0.2")


def test_markouts_are_signed_by_side(engine: DuckDB, tmp_path: Path) -> None:
    quotes = [
        quote("A", DAWN, "9.9", "10.1", offset=0),
        quote("A", DAWN + 10 * SECOND, "10.4", "10.6", offset=1),
        quote("A", DAWN + 60 * SECOND, "9.4", "9.6", offset=2),
    ]
    trades = [
        trade("A", DAWN + SECOND, "10.1", "2", offset=0),
        trade("A", DAWN + SECOND, "9.9", "1", offset=1, side="SELL_SHORT"),
        trade("A", DAWN + SECOND, "9.9", "1", offset=2, side="UNKNOWN"),
    ]
    market = market_of(engine, tmp_path, trades, quotes)
    wanted = MarkoutsWanted((SECOND, 10 * SECOND, timedelta(hours=1)))
    made = make_markouts(market, Selection(), wanted)
    found = [(row["side"], row["horizon"], str(row["markout"])) for row in made.table.to_pylist()]
    # Of the hour after, nothing is known yet: it is not as if the last quote stood till then.
    assert found == [
        ("BUY", "1s", "0E-8"),
        ("BUY", "10s", "0.50000000"),
        ("SELL", "1s", "0E-8"),
        ("SELL", "10s", "-0.50000000"),
    ]
    assert made.sideless == 1


def test_a_day_of_25_hours_is_one_interval(engine: DuckDB, tmp_path: Path) -> None:
    day = date(2024, 4, 7)
    begin = start_of({"exchange": "ASX", "exchange_date": day}, timedelta(days=1))
    quotes = [
        quote("A", begin + timedelta(hours=hours), "1", ask, exchange="ASX", offset=hours)
        for hours, ask in ((-1, "2"), (1, "3"), (24, "5"), (26, "9"))
    ]
    market = market_of(engine, tmp_path, [], quotes)
    wanted = SpreadsWanted(parse_interval("1d"), SECOND)
    made = make_spreads(market, Selection(start=day, end=day + timedelta(days=1)), wanted)
    (row,) = made.table.to_pylist()
    assert row["start"] == begin
    assert row["quoted_seconds"] == Decimal(25 * 3600)
    assert row["quoted_spread"] == quotient(Decimal(1 + 2 * 23 + 4), Decimal(25))
    assert EXCHANGES["ASX"].zone == "Australia/Sydney"


def test_a_day_that_rolls_begins_the_evening_before(
    engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    roll = timedelta(hours=7)
    monkeypatch.setitem(EXCHANGES, "CME", Exchange("CME", "futures", "America/Chicago", roll))
    # 17:00 of the 4th in Chicago is where the 5th begins.
    begin = datetime(2024, 3, 4, 23, tzinfo=UTC)
    quotes = [
        quote("A", begin + timedelta(hours=hours), "1", ask, exchange="CME", offset=offset)
        for offset, (hours, ask) in enumerate([(-1, "9"), (2, "2"), (20, "3"), (25, "5")])
    ]
    assert [row["exchange_date"].day for row in quotes] == [4, 5, 5, 6]
    market = market_of(engine, tmp_path, [], quotes)
    made = make_spreads(market, Selection(), SpreadsWanted(parse_interval("1d"), SECOND))
    fourth, fifth, sixth = made.table.to_pylist()
    assert fourth["start"] == datetime(2024, 3, 4, 6, tzinfo=UTC)
    assert (fourth["quoted_seconds"], fourth["quoted_spread"]) == (Decimal(3600), Decimal(8))
    assert fifth["quoted_seconds"] == Decimal(24 * 3600)
    assert fifth["quoted_spread"] == quotient(Decimal(2 * 8 + 18 * 1 + 4 * 2), Decimal(24))
    assert sixth["quoted_seconds"] == Decimal(3600)


def test_where_nothing_is_there(engine: DuckDB, tmp_path: Path) -> None:
    market = market_of(engine, tmp_path, [], [])
    assert make_spreads(market, Selection(), SpreadsWanted(parse_interval("1m"), SECOND)) == (
        make_spreads(market, Selection(("A",)), SpreadsWanted(parse_interval("1h"), SECOND))
    )
    assert make_markouts(market, Selection(), MarkoutsWanted((SECOND,))).table.num_rows == 0
    alone = market_of(engine, tmp_path / "b", [trade("A", DAWN, "1")], [])
    made = make_spreads(alone, Selection(), SpreadsWanted(parse_interval("1m"), SECOND))
    (row,) = made.table.to_pylist()
    assert (row["quoted_spread"], row["effective_spread"], row["trade_count"]) == (None, None, 0)
    assert made.left_out == 1


@pytest.mark.parametrize("length", [-SECOND, timedelta(days=36_501), timedelta.max])
def test_so_long_cannot_be(engine: DuckDB, tmp_path: Path, length: timedelta) -> None:
    for made in (
        lambda: JoinWanted(max_age=length),
        lambda: Measuring(max_age=length),
        lambda: MarkoutsWanted((length,)),
        lambda: SpreadsWanted(parse_interval("1m"), length),
    ):
        with pytest.raises(BadInput, match="must be 0s to 36500d"):
            made()
    longest = timedelta(days=36_500)
    market = market_of(engine, tmp_path, [trade("A", DAWN, "1")], [quote("A", DAWN, "1", "2")])
    wanted = MarkoutsWanted((longest,), Measuring(max_age=longest))
    assert make_markouts(market, Selection(), wanted).table.num_rows == 0


def test_so_many_horizons_cannot_be() -> None:
    for count in (0, 21):
        with pytest.raises(BadInput, match="horizons"):
            MarkoutsWanted((SECOND,) * count)


@pytest.mark.parametrize("text", ["5s", "250ms", "10m", "1us", "36500d", "0us", "1500ms", "36h"])
def test_a_length_of_time_reads_back(text: str) -> None:
    assert parse_span(to_span(parse_span(text))) == parse_span(text)
    assert to_span(parse_span("60s")) == "1m"


@pytest.mark.parametrize("text", ["", "5", "s", "-5s", "5 parsecs", "1.5s", "9999999999999999d"])
def test_what_is_no_length_of_time(text: str) -> None:
    with pytest.raises(BadInput, match="no length"):
        parse_span(text)
