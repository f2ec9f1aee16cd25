from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.query.counted import SCHEMA, CountedWanted, make_counted, parse_size, settled
from k2.query.duckdb import DuckDB
from k2.query.gaps import Gap
from k2.query.selection import Selection
from k2.query.view import View
from tests.query import plain
from tests.query.make import EXCHANGES, Row, random_trades, split, trade, view_of

SIZES = {"tick": ["1", "3", "7", "1000"], "volume": ["0.00000001", "999.5", "250000"],
         "dollar": ["0.25", "1000", "123456789"]}  # fmt: skip
AT = datetime(2024, 3, 4, tzinfo=UTC)


def made(
    engine: DuckDB, view: View, selection: Selection, kind: str, size: str, **more: Any
) -> list[dict[str, Any]]:
    wanted = CountedWanted(parse_size(kind, size), **more)
    table = settled(make_counted(engine, view, selection, wanted), [], view.exchanges)
    assert table.schema == SCHEMA.append(pa.field("complete", pa.bool_()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 150),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    kind=st.sampled_from(sorted(SIZES)),
    size=st.integers(0, 2),
    ties=st.sampled_from([1, 5, 50]),
    partitions=st.integers(1, 2),
    edges=st.tuples(st.integers(0, 48), st.integers(1, 48)),
)
def test_bars_equal_a_plain_reference(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    kind: str,
    size: int,
    ties: int,
    partitions: int,
    edges: tuple[int, int],
) -> None:
    rows = random_trades(
        seed,
        count,
        exchanges=("sim", "ASX", "CME"),
        span=timedelta(days=2),
        ties=ties,
        partitions=partitions,
    )
    *commits, tail = split(rows, cuts)
    begin = datetime(2024, 3, 4, 22, tzinfo=UTC) + timedelta(hours=edges[0])
    end = begin + timedelta(hours=edges[1])
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        of = SIZES[kind][size]
        assert made(engine, view, Selection(), kind, of) == plain.counted(rows, kind, of)
        # Only the dates that are asked for are read, and the answer is no other.
        part = made(engine, view, Selection(start=begin, end=end), kind, of)
    assert part == plain.counted(rows, kind, of, start=begin, end=end)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(sorted(SIZES)), size=st.integers(0, 2))
def test_ranges_that_are_cut_at_dates_are_the_whole(
    engine: DuckDB, seed: int, kind: str, size: int
) -> None:
    rows = random_trades(seed, 200, exchanges=("sim", "ASX"), span=timedelta(days=5), ties=2)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), [rows[:90], rows[90:150]], rows[150:])
        of = SIZES[kind][size]
        whole = made(engine, view, Selection(), kind, of)
        parts = []
        for day in range(1, 15):
            edge = date(2024, 3, day)
            selection = Selection(start=edge, end=edge + timedelta(days=1))
            parts += made(engine, view, selection, kind, of)
    parts.sort(key=lambda bar: (bar["symbol"], bar["exchange"]))
    assert parts == whole


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), last=st.integers(1, 60), some=st.booleans())
def test_newest_bars_are_the_tail_of_all(engine: DuckDB, seed: int, last: int, some: bool) -> None:
    old = random_trades(seed, 30, symbols=("old",), start=datetime(2020, 1, 1, tzinfo=UTC), ties=1)
    rows = old + random_trades(
        seed, 300, symbols=("A", "B"), exchanges=("sim", "ASX"), span=timedelta(days=12), ties=3
    )
    selection = Selection(("A", "old") if some else ())
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), [rows[:100], rows[100:250]], rows[250:])
        newest = made(engine, view, selection, "tick", "5", last=last)
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for bar in plain.counted([r for r in rows if not some or r["symbol"] != "B"], "tick", "5"):
        groups.setdefault((bar["symbol"], bar["exchange"]), []).append(bar)
    assert newest == [bar for group in groups.values() for bar in group[-last:]]


def bars_of(engine: DuckDB, folder: Path, rows: list[Row], kind: str, size: str) -> list[Any]:
    view = view_of(folder, [rows])
    return [
        (bar["volume"], bar["trade_count"], bar["complete"])
        for bar in made(engine, view, Selection(), kind, size)
    ]


def test_the_trade_that_crosses_closes_the_bar_and_shortens_the_next(
    engine: DuckDB, tmp_path: Path
) -> None:
    quantities = ["60", "60", "60", "20", "350", "50", "1"]
    rows = [trade("A", AT, "2", quantity, offset=n) for n, quantity in enumerate(quantities)]
    # Totals: 60, 120 | 180, 200 | 550 (which covers the bars to 500 and begins that to 600) | 600 |
    expected = [(120, 2, True), (80, 2, True), (350, 1, True), (50, 1, True), (1, 1, False)]
    assert bars_of(engine, tmp_path, rows, "volume", "100") == expected
    assert bars_of(engine, tmp_path, rows, "dollar", "200") == expected


def test_a_bar_is_full_to_the_digit(engine: DuckDB, tmp_path: Path) -> None:
    rows = [trade("A", AT, "3", "0.33333333", offset=n) for n in range(3)]
    assert bars_of(engine, tmp_path, rows, "volume", "1") == [(Decimal("0.99999999"), 3, False)]
    assert bars_of(engine, tmp_path, rows, "volume", "0.99999999")[0][2] is True
    assert bars_of(engine, tmp_path, rows, "dollar", "2.99999997")[0][2] is True
    assert bars_of(engine, tmp_path, rows, "dollar", "2.99999998")[0][2] is False
    most = "9999999999.99999999"
    huge = [trade("A", AT, most, most, offset=n) for n in range(2)]
    found = bars_of(engine, tmp_path, huge, "dollar", "999999999999999")
    assert [(count, full) for _, count, full in found] == [(1, True), (1, True)]


def test_a_bar_ends_with_its_date(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade("A", AT + timedelta(hours=hours), "1", offset=n)
        for n, hours in enumerate((22, 23, 25, 26, 27))
    ]
    view = view_of(tmp_path, [rows])
    found = made(engine, view, Selection(), "tick", "3")
    assert [(b["trade_count"], b["complete"]) for b in found] == [(2, False), (3, True)]
    assert [(b["start"], b["end"]) for b in found][1] == (
        AT + timedelta(hours=25),
        AT + timedelta(hours=27),
    )


def test_nothing_gives_no_bars(engine: DuckDB, tmp_path: Path) -> None:
    view = view_of(tmp_path, [[trade("A", AT, "1")]])
    assert made(engine, view, Selection(("B",)), "tick", "3") == []
    assert made(engine, view, Selection(("B",)), "tick", "3", last=2) == []
    assert made(engine, view, Selection(start=AT + timedelta(days=3)), "tick", "3") == []
    empty = view_of(tmp_path, [], exchanges={"sim": EXCHANGES["sim"]})
    assert made(engine, empty, Selection(), "tick", "3", last=2) == []
    far = Selection(start=datetime.min.replace(tzinfo=UTC), end=datetime.max.replace(tzinfo=UTC))
    assert len(made(engine, view, far, "tick", "3")) == 1


def test_a_gap_spoils_its_date_from_there_on(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade("A", AT + timedelta(hours=hours), "1", offset=n)
        for n, hours in enumerate((1, 2, 3, 4, 5, 25, 26, 27))
    ]
    view = view_of(tmp_path, [rows])
    wanted = CountedWanted(parse_size("tick", "1"))
    raw = make_counted(engine, view, Selection(), wanted)

    def spoiled(gap: Gap) -> list[int]:
        found = settled(raw, [gap], view.exchanges)["complete"].to_pylist()
        return [at for at, whole in enumerate(found) if not whole]

    begin, end = AT + timedelta(hours=3, minutes=30), AT + timedelta(hours=3, minutes=40)
    assert spoiled(Gap("A", "sim", begin, end, 1, "unknown")) == [3, 4]
    assert spoiled(Gap("A", "sim", begin, AT + timedelta(hours=24), 1, "x")) == [3, 4, 5, 6, 7]
    assert spoiled(Gap("A", "sim", None, end, 1, "x")) == [3, 4]
    assert spoiled(Gap("B", "sim", begin, end, 1, "x")) == []
    assert spoiled(Gap("A", "ASX", begin, end, 1, "x")) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [("tick", "0"), ("tick", "1.5"), ("tick", "1m"), ("tick", ""), ("tick", "-3"), ("tick", "１"),
     ("volume", "0"), ("volume", "0.000000001"), ("volume", "1e3"), ("dollar", "1,000"),
     ("dollar", "1" * 16), ("volume", "nan")],
)  # fmt: skip
def test_sizes_that_cannot_be(kind: str, text: str) -> None:
    with pytest.raises(BadInput, match=f"no size of {kind} bars"):
        parse_size(kind, text)


def test_a_date_is_midnight_at_each_exchange_for_the_newest_too(
    engine: DuckDB, tmp_path: Path
) -> None:
    # The newest date begins first at sim, between the midnights of the others.
    names, edge = ("ASX", "NYSE", "sim"), date(2024, 3, 8)
    rows = random_trades(
        5, 900, symbols=("A",), exchanges=names, start=AT, span=timedelta(days=4, hours=21), ties=3
    )
    view = view_of(tmp_path, [rows[:600]], rows[600:])
    of = {
        name: plain.counted(
            [row for row in rows if row["exchange"] == name],
            "tick",
            "3",
            start=plain.date_begins(name, edge),
        )
        for name in names
    }
    for last in range(1, 2 + max(map(len, of.values()))):
        newest = made(engine, view, Selection(("A",), start=edge), "tick", "3", last=last)
        assert newest == [bar for name in names for bar in of[name][-last:]], last
