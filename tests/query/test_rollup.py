"""Roll-ups: bars by way of partial bars are those from the trades, whatever is asked."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.query import rollup as rolling
from k2.query.bars import BarsWanted, make_bars
from k2.query.duckdb import DuckDB
from k2.query.interval import parse_interval
from k2.query.port import Pin, Source, Standing, Statement
from k2.query.rollup import Rollups, Span, roll_up_file
from k2.query.selection import Selection, parse_conditions
from k2.query.view import NOTHING, View
from tests.query import reference
from tests.query.make import Row, random_trades, split, trade, view_of
from tests.query.test_bars import INTERVALS

_GAIN = "_GAIN"


@pytest.fixture(autouse=True)
def _minutes_of_every_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, _GAIN, 0)


def rolled(engine: DuckDB, folder: Path, view: View, *, but: Sequence[int] = ()) -> View:
    """The view with roll-ups of its files, but of those at these places."""
    (folder / "rollups").mkdir(exist_ok=True)
    for number, file in enumerate(view.select()):
        if number not in but:
            roll_up_file(engine, folder / "rollups", file, uuid4())
    return replace(view, rollups=Rollups(folder / "rollups"))


class Watched:
    """An engine that tells which data files were read."""

    def __init__(self, engine: DuckDB) -> None:
        self._engine = engine
        self.read: list[str] = []

    def run(self, made: Statement, sources: dict[str, Source]) -> object:
        of = sources.get("rows")
        if isinstance(of, Source):
            self.read += [*of.files, *(file.path for file in of.partial)]
        return self._engine.run(made, sources)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    interval=st.sampled_from(sorted(INTERVALS)),
    ties=st.sampled_from([1, 5, 50]),
    all_trades=st.booleans(),
    but=st.lists(st.integers(0, 4), max_size=2),
    hours=st.sampled_from([1, 3, 60]),
    edges=st.tuples(*[st.none() | st.integers(-30, 4000)] * 2),
    seconds=st.booleans(),
    last=st.none() | st.integers(1, 5),
    symbols=st.sampled_from([(), ("A",), ("B", "C", "Z")]),
    names=st.sampled_from([("sim",), ("sim", "ASX", "NYSE")]),
)
def test_bars_are_the_same_with_roll_ups_and_without(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    interval: str,
    ties: int,
    all_trades: bool,
    but: list[int],
    hours: int,
    edges: tuple[int | None, int | None],
    seconds: bool,
    last: int | None,
    symbols: tuple[str, ...],
    names: tuple[str, ...],
) -> None:
    begin = datetime(2024, 3, 4, 22, tzinfo=UTC)
    rows = random_trades(
        seed, count, exchanges=names, ties=ties, start=begin, span=timedelta(hours=hours)
    )
    *commits, tail = split(rows, cuts)
    step = timedelta(seconds=17) if seconds else timedelta(minutes=1)
    start, end = (None if edge is None else begin + edge * step for edge in edges)
    if start is not None and end is not None and start >= end:
        start, end = end, start + step
    selection = Selection(symbols, start=start, end=end)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        wanted = BarsWanted(parse_interval(interval), all_trades=all_trades, last=last)
        plain = make_bars(engine, view, selection, wanted)
        with_them = rolled(engine, Path(folder), view, but=but)
        made = make_bars(engine, with_them, selection, wanted)
    assert made.equals(plain)
    if last is None:
        chosen = [
            row
            for row in rows
            if (not symbols or row["symbol"] in symbols)
            and (start is None or row["timestamp"] >= start)
            and (end is None or row["timestamp"] < end)
        ]
        assert made.to_pylist() == reference.bars(
            chosen, INTERVALS[interval], all_trades=all_trades
        )


def day_of_trades(count: int = 300, day: date = date(2024, 3, 5)) -> list[Row]:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    step = timedelta(days=1) / count
    return [
        trade("A", start + n * step, Decimal(100 + n % 7), str(n + 1), offset=n)
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("interval", "start", "end", "reads"),
    [
        ("1m", None, None, False),
        ("1d", None, None, False),
        ("1d", "2024-03-05T10:00:00Z", None, False),
        ("1h", "2024-03-05T10:01:00Z", "2024-03-05T11:07:00Z", False),
        ("1d", "2024-03-05T10:00:00.5Z", None, True),
        ("1h", "2024-03-05T10:01:30Z", None, True),
        ("1h", None, "2024-03-05T10:01:00.000001Z", True),
        ("30s", None, None, True),
    ],
)
def test_trades_are_read_only_where_a_minute_is_cut(
    engine: DuckDB, tmp_path: Path, interval: str, start: str | None, end: str | None, reads: bool
) -> None:
    view = rolled(engine, tmp_path, view_of(tmp_path, [day_of_trades()]))
    watched = Watched(engine)
    edges = [None if t is None else datetime.fromisoformat(t) for t in (start, end)]
    selection = Selection(("A",), start=edges[0], end=edges[1])
    make_bars(watched, view, selection, BarsWanted(parse_interval(interval)))  # type: ignore[arg-type]
    assert bool(watched.read) is reads


def test_a_condition_and_what_was_known_then_read_the_trades(
    engine: DuckDB, tmp_path: Path
) -> None:
    rows = day_of_trades()
    view = rolled(engine, tmp_path, view_of(tmp_path, [rows]))
    dear = Selection(("A",), where=parse_conditions(["price>=104"]))
    made = make_bars(engine, view, dear, BarsWanted(parse_interval("1d")))
    assert made["trade_count"].to_pylist() == [sum(row["price"] >= 104 for row in rows)]
    then = replace(view, known_at=datetime(2024, 3, 5, 12, tzinfo=UTC))
    made = make_bars(engine, then, Selection(), BarsWanted(parse_interval("1d")))
    assert made["trade_count"].to_pylist() == [151]


def test_as_of_a_commit_later_rows_of_a_file_do_not_count(engine: DuckDB, tmp_path: Path) -> None:
    rows = day_of_trades(40)
    whole = view_of(tmp_path, [rows[:20], rows[20:]])
    view = rolled(engine, tmp_path, whole)
    made = make_bars(
        engine, replace(view, pin=Pin(1)), Selection(), BarsWanted(parse_interval("1d"))
    )
    assert made["trade_count"].to_pylist() == [20]


def test_corrected_trades_are_read_and_others_are_not(engine: DuckDB, tmp_path: Path) -> None:
    touched = day_of_trades(50)
    others = [
        row | {"log_offset": 1000 + n, "symbol": "B"} for n, row in enumerate(day_of_trades(60))
    ]
    view = rolled(engine, tmp_path, view_of(tmp_path, [touched, others]))
    source = view.source(view.select())
    standing = Standing(NOTHING, frozenset([view.select()[0].path]))
    split_, partial = view.rollups.split(  # type: ignore[union-attr]
        replace(source, standing=standing), view.select(), Span(), days=True
    )
    assert split_.files == (view.select()[0].path,)
    assert partial is not None
    assert len(partial.files) == 1


def test_minutes_that_hold_hardly_more_than_a_trade_are_not_kept(
    engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rolling, _GAIN, 4)
    view = rolled(engine, tmp_path, view_of(tmp_path, [day_of_trades(300)]))
    names = sorted(path.name.split(".")[1] for path in (tmp_path / "rollups").iterdir())
    assert names == ["days"]
    made = make_bars(engine, view, Selection(), BarsWanted(parse_interval("1h")))
    assert sum(made["trade_count"].to_pylist()) == 300


def test_roll_ups_that_are_made_later_are_seen(engine: DuckDB, tmp_path: Path) -> None:
    plain = view_of(tmp_path, [day_of_trades()])
    view = replace(plain, rollups=Rollups(tmp_path / "rollups"))
    wanted = BarsWanted(parse_interval("1d"))
    watched = Watched(engine)
    make_bars(watched, view, Selection(), wanted)  # type: ignore[arg-type]
    assert watched.read
    rolled(engine, tmp_path, plain)
    watched.read.clear()
    make_bars(watched, view, Selection(), wanted)  # type: ignore[arg-type]
    assert watched.read == []


class Silent:
    """An engine that tells what was asked of it."""

    def __init__(self, engine: DuckDB) -> None:
        self._engine = engine
        self.asked: list[str] = []

    def run(self, made: Statement, sources: dict[str, Source]) -> object:
        self.asked.append(made.text)
        return self._engine.run(made, sources)


def test_minutes_of_one_file_are_bars_without_the_engine(engine: DuckDB, tmp_path: Path) -> None:
    rows = day_of_trades(3000)
    later = [row | {"log_offset": 5000 + n} for n, row in enumerate(day_of_trades(50))]
    for row in later:
        row["timestamp"] += timedelta(days=1)
        row["exchange_date"] = date(2024, 3, 6)
    plain = view_of(tmp_path, [rows, later])
    view, silent = rolled(engine, tmp_path, plain), Silent(engine)
    start = datetime(2024, 3, 5, 10, tzinfo=UTC)
    for last in (None, 7):
        wanted = BarsWanted(parse_interval("1m"), last=last)
        for selection in (
            Selection(("A",)),
            Selection(("A", "Z"), start=start, end=start + timedelta(minutes=17)),
        ):
            expected = make_bars(engine, plain, selection, wanted)
            make_bars(engine, view, selection, wanted)
            silent.asked.clear()
            assert make_bars(silent, view, selection, wanted).equals(expected)  # type: ignore[arg-type]
            assert silent.asked == []
    # Of five minutes, and of those that two files share, the engine makes one.
    make_bars(silent, view, Selection(("A",)), BarsWanted(parse_interval("5m")))  # type: ignore[arg-type]
    assert len(silent.asked) == 1
    shared = view_of(tmp_path, [rows[:1000], rows[1000:1001] + rows[998:999]])
    made, expected = (
        make_bars(engine, of, Selection(("A",)), BarsWanted(parse_interval("1m")))
        for of in (rolled(engine, tmp_path, shared), shared)
    )
    assert made.equals(expected)


def test_a_tail_with_such_trades_is_merged(engine: DuckDB, tmp_path: Path) -> None:
    rows = day_of_trades(3000)
    others = [trade("B", row["timestamp"], "1", offset=9000 + n) for n, row in enumerate(rows[:9])]
    view = rolled(engine, tmp_path, view_of(tmp_path, [rows[:2000]], others))
    silent, wanted = Silent(engine), BarsWanted(parse_interval("1m"))
    make_bars(silent, view, Selection(("A",)), wanted)  # type: ignore[arg-type]
    silent.asked.clear()
    assert make_bars(silent, view, Selection(("A",)), wanted).num_rows == 960  # type: ignore[arg-type]
    assert silent.asked == []
    # One trade more of the last minute, in the tail.
    more = rolled(engine, tmp_path, view_of(tmp_path, [rows[:2000]], rows[2000:2001]))
    plain = replace(more, rollups=None)
    made, expected = (make_bars(engine, of, Selection(("A",)), wanted) for of in (more, plain))
    assert made.equals(expected)
    assert made.num_rows in (960, 961)
