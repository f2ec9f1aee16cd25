from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput
from k2.query.bbo import SCHEMA, make_bbo
from k2.query.duckdb import DuckDB
from k2.query.selection import Selection
from tests.query import plain
from tests.query.make import Row, split
from tests.query.quotes import quote, random_quotes, view_of_quotes

AT = datetime(2024, 3, 4, tzinfo=UTC)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 150),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    exchanges=st.sampled_from([("sim",), ("sim", "ASX", "CME"), ("ASX", "NYSE")]),
    edges=st.tuples(st.integers(0, 120), st.integers(1, 60)),
)
def test_best_quotes_equal_a_plain_reference_and_ranges_are_parts_of_it(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    exchanges: tuple[str, ...],
    edges: tuple[int, int],
) -> None:
    rows = random_quotes(
        seed, count, symbols=("A", "B"), exchanges=exchanges, start=AT, span=timedelta(days=5)
    )
    *commits, tail = split(rows, cuts)
    start = AT + timedelta(hours=edges[0])
    end = start + timedelta(hours=edges[1])
    with TemporaryDirectory() as folder:
        view = view_of_quotes(Path(folder), commits, tail)
        whole = make_bbo(engine, view, Selection(), None)
        part = make_bbo(engine, view, Selection(start=start, end=end), None)
    assert whole.schema == SCHEMA
    wanted = plain.bbo(rows)
    assert whole.to_pylist() == wanted
    assert part.to_pylist() == plain.bbo(rows, start=start, end=end)
    assert part.to_pylist() == [row for row in wanted if start <= row["timestamp"] < end]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), last=st.integers(1, 60), some=st.booleans())
def test_the_newest_are_the_tail_of_all(engine: DuckDB, seed: int, last: int, some: bool) -> None:
    early = datetime(2023, 1, 1, tzinfo=UTC)
    rows = random_quotes(
        seed, 20, symbols=("old",), exchanges=("sim",), start=early, span=timedelta(days=1)
    ) + random_quotes(
        seed, 150, symbols=("A", "B"), exchanges=("sim", "ASX"), start=AT, span=timedelta(days=12)
    )
    selection = Selection(("A", "old") if some else ())
    with TemporaryDirectory() as folder:
        view = view_of_quotes(Path(folder), [rows[:80]], rows[80:])
        found = make_bbo(engine, view, selection, last)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in plain.bbo([each for each in rows if not some or each["symbol"] != "B"]):
        groups.setdefault(row["symbol"], []).append(row)
    assert found.to_pylist() == [row for group in groups.values() for row in group[-last:]]


def best(engine: DuckDB, folder: Path, rows: list[Row], **range_: Any) -> list[tuple[Any, ...]]:
    view = view_of_quotes(folder, [rows[:1]], rows[1:])
    found = make_bbo(engine, view, Selection(**range_), None).to_pylist()
    return [tuple(row.values())[2:] for row in found]


def test_the_best_of_two_exchanges(engine: DuckDB, tmp_path: Path) -> None:
    second = timedelta(seconds=1)
    ten, eleven, twelve = (("10", "1"), ("11", "2"), ("12", "3"))
    rows = [
        quote("A", AT, ten, twelve),
        quote("A", AT + second, ten, eleven, exchange="ASX"),
        quote("A", AT + 2 * second, ten, eleven, exchange="ASX", offset=1),  # nothing changes
        quote("A", AT + 3 * second, None, eleven, exchange="ASX", offset=2),
        quote("A", AT + 4 * second, twelve, None, exchange="ASX", offset=3),  # crosses
    ]
    d = Decimal
    assert best(engine, tmp_path, rows) == [
        (d(10), d(1), "sim", d(12), d(3), "sim"),
        (d(10), d(2), "ASX,sim", d(11), d(2), "ASX"),
        (d(10), d(1), "sim", d(11), d(2), "ASX"),
        (d(12), d(3), "ASX", d(12), d(3), "sim"),
    ]
    assert len(best(engine, tmp_path, rows, exchanges=("sim",))) == 1


def test_a_quote_stands_no_longer_than_its_date(engine: DuckDB, tmp_path: Path) -> None:
    one, two = ("1", "1"), ("2", "1")
    rows = [
        quote("A", AT + timedelta(hours=12), two, two),
        # Midnight at ASX is at 13:00.
        quote("A", AT + timedelta(hours=12, minutes=30), two, two, exchange="ASX"),
        quote("A", AT + timedelta(hours=14), one, one, offset=1),
        quote("A", AT + timedelta(hours=25), one, one, exchange="ASX", offset=1),
    ]
    names = [row[2] for row in best(engine, tmp_path, rows)]
    assert names == ["sim", "ASX,sim", "sim", "ASX"]
    # A range that begins in between knows what stood.
    late = AT + timedelta(hours=13, minutes=30)
    assert [row[2] for row in best(engine, tmp_path, rows, start=late)] == ["sim", "ASX"]


@pytest.mark.parametrize("last", [None, 3])
def test_nothing_gives_nothing(engine: DuckDB, tmp_path: Path, last: int | None) -> None:
    view = view_of_quotes(tmp_path, [[quote("A", AT, None, None)]], [])
    assert make_bbo(engine, view, Selection(("B",)), last).num_rows == 0
    assert make_bbo(engine, view, Selection(start=date(2030, 1, 1)), last).num_rows == 0
    assert make_bbo(engine, view, Selection(("A",)), last)["bid_price"].to_pylist() == [None]


def test_as_many_exchanges_as_there_are_bits(engine: DuckDB, tmp_path: Path) -> None:
    view = view_of_quotes(tmp_path, [[quote("A", AT, ("1", "1"), None)]], [])
    every = [f"x{n:03}" for n in range(119)]
    many = replace(view, exchanges=dict.fromkeys([*every, "sim"], view.exchanges["sim"]))
    found = make_bbo(engine, many, Selection(), None)
    assert found["bid_exchanges"].to_pylist() == ["sim"]
    more = replace(many, exchanges={**many.exchanges, "y": view.exchanges["sim"]})
    with pytest.raises(BadInput, match="121 exchanges"):
        make_bbo(engine, more, Selection(), None)
    assert make_bbo(engine, more, Selection(exchanges=("sim",)), None).num_rows == 1
