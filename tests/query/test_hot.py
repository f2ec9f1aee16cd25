"""Hot rows: the newest rows from memory are those from the files, as commits and tails go on."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.query import hot as heating
from k2.query.duckdb import DuckDB
from k2.query.hot import Hot
from k2.query.page import Page
from k2.query.port import Pin, Source, Statement
from k2.query.records import Wanted, fetch_records
from k2.query.selection import Selection, parse_conditions
from k2.query.view import STANDING, View
from tests.query.make import Files, Row, random_trades, split, trade, view_of, write_file

KEPT = "KEPT_ROWS"


BEGAN = datetime(2024, 3, 4, 22, tzinfo=UTC)
"""When the first of random trades may be."""
DAYS = (date(2024, 3, 4), date(2024, 3, 5))


def edge_of(minute: int | str | None, day: date) -> datetime | date | None:
    """An edge of a range: so many minutes after the first, or a date, which is several instants."""
    if minute is None:
        return None
    return day if isinstance(minute, str) else BEGAN + timedelta(minutes=minute)


class Watched:
    """An engine that tells how many files were read, and how many statements were run."""

    def __init__(self, engine: DuckDB) -> None:
        self._engine = engine
        self.files = 0
        self.statements = 0

    def run(self, made: Statement, sources: dict[str, Source]) -> object:
        self.statements += 1
        of = sources.get("rows")
        if isinstance(of, Source):
            self.files += len(of.files) + len(of.partial)
        return self._engine.run(made, sources)


def growing(folder: Path, commits: list[list[Row]]) -> list[View]:
    """A view after each commit, whose files are those of the one before and more."""
    whole = view_of(folder, [], [row for rows in commits for row in rows])
    refs = [write_file(folder, rows, n) for n, rows in enumerate(commits, 1) if rows]
    return [
        replace(
            whole,
            index=Files(tuple(ref for ref in refs if ref.sequence <= n)),
            sequence=n,
            tail=None,
            ranges=(),
        )
        for n in range(1, len(commits) + 1)
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
    ties=st.sampled_from([1, 5, 50]),
    kept=st.sampled_from([4, 16, 512]),
    most=st.sampled_from([10, 10**6]),
    asked=st.lists(
        st.tuples(
            st.sampled_from([(), ("A",), ("B",), ("Z",)]),
            st.integers(1, 20),
            st.sampled_from([(), ("sim",), ("ASX", "sim"), ("none",)]),
            st.sampled_from([[], [], ["price>=1"]]),
            st.sampled_from([(None, None), (None, 70), (20, None), (30, 100), ("day", "day")]),
        ),
        min_size=1,
        max_size=4,
    ),
)
def test_the_newest_are_the_same_from_memory_and_from_files(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    ties: int,
    kept: int,
    most: int,
    asked: list[tuple[tuple[str, ...], int, tuple[str, ...], list[str], tuple[Any, Any]]],
) -> None:
    rows = random_trades(seed, count, exchanges=("sim", "ASX"), ties=ties)
    parts = split(rows, cuts)
    hot = Hot(most)
    before = heating.KEPT_ROWS
    heating.KEPT_ROWS = kept  # type: ignore[misc]
    try:
        with TemporaryDirectory() as folder:
            for n, view in enumerate(growing(Path(folder), parts)):
                tail = parts[n + 1] if n + 1 < len(parts) else []
                now = view_of(Path(folder), [], tail)
                view = replace(view, tail=now.tail, ranges=now.ranges)
                for symbols, last, exchanges, where, minutes in asked:
                    start, end = map(edge_of, minutes, DAYS)
                    conditions = parse_conditions(where)
                    selection = Selection(symbols, exchanges, start, end, conditions)
                    wanted = Wanted(last=last)
                    plain, _ = fetch_records(engine, view, selection, wanted)
                    from_memory, _ = fetch_records(
                        engine, replace(view, hot=hot), selection, wanted
                    )
                    assert from_memory.equals(plain)
    finally:
        heating.KEPT_ROWS = before  # type: ignore[misc]


def steady(count: int, symbol: str = "A", first: int = 0) -> list[Row]:
    start = datetime(2024, 3, 5, tzinfo=UTC)
    return [
        trade(symbol, start + timedelta(seconds=n), Decimal(n + 1), offset=n)
        for n in range(first, first + count)
    ]


def ids(engine: object, view: View, last: int, **more: object) -> list[int]:
    wanted = Wanted(last=last, fields=("log_offset",))
    found, _ = fetch_records(engine, view, Selection(("A",)), wanted, **more)  # type: ignore[arg-type]
    return [int(n) for n in found["log_offset"].to_pylist()]


def test_a_symbol_that_is_known_opens_no_file(engine: DuckDB, tmp_path: Path) -> None:
    views = growing(tmp_path, [steady(2_000), steady(50, first=2_000), steady(50, first=2_050)])
    hot, watched = Hot(10**6), Watched(engine)
    assert ids(watched, replace(views[0], hot=hot), 100) == list(range(1_900, 2_000))
    assert watched.files > 0
    watched.files = watched.statements = 0
    for n, view in enumerate(views):
        end = 2_000 + 50 * n
        assert ids(watched, replace(view, hot=hot), 100) == list(range(end - 100, end))
        # The tail is joined to them without the engine.
        tail = view_of(tmp_path, [], steady(3, first=end)).tail
        assert ids(watched, replace(view, hot=hot, tail=tail), 5) == list(range(end - 2, end + 3))
    assert watched.files == watched.statements == 0
    # More than is kept is read from files, and right.
    assert ids(watched, replace(views[2], hot=hot), 1_500) == list(range(600, 2_100))
    assert watched.files > 0


def test_states_of_the_past_are_read_from_files(engine: DuckDB, tmp_path: Path) -> None:
    first, second = growing(tmp_path, [steady(100), steady(100, first=100)])
    hot, watched = Hot(10**6), Watched(engine)
    assert ids(watched, replace(second, hot=hot), 5) == list(range(195, 200))
    watched.files = 0
    assert ids(watched, replace(second, hot=hot, pin=Pin(1)), 5) == list(range(95, 100))
    assert ids(watched, replace(first, hot=hot), 5) == list(range(95, 100))
    assert watched.files > 0


def test_what_was_corrected_is_corrected_in_memory_too(engine: DuckDB, tmp_path: Path) -> None:
    rows = [row | {"trade_id": str(n)} for n, row in enumerate(steady(50))]
    (view,) = growing(tmp_path, [rows])
    hot = Hot(10**6)
    assert ids(engine, replace(view, hot=hot), 3) == [47, 48, 49]
    last = rows[-1]
    standing = STANDING.empty_table()
    bust = {name: last.get(name) for name in STANDING.names} | {
        "action": "BUST",
        "price": None,
        "quantity": None,
        "corrections": 1,
    }
    standing = standing.from_pylist([bust], schema=STANDING)
    busted = replace(view, hot=hot, standing=standing)
    assert ids(engine, busted, 3) == [46, 47, 48]
    assert ids(engine, replace(view, hot=hot), 3) == [47, 48, 49]


def test_pages_go_on_from_files(engine: DuckDB, tmp_path: Path) -> None:
    (view,) = growing(tmp_path, [steady(50)])
    hot = replace(view, hot=Hot(10**6))
    wanted = Wanted(limit=10, fields=("log_offset",))
    _, page = fetch_records(engine, hot, Selection(("A",)), wanted)
    assert isinstance(page, Page)
    second, _ = fetch_records(engine, hot, Selection(("A",)), wanted, after=page)
    assert second["log_offset"].to_pylist() == list(range(10, 20))


def test_what_is_kept_is_bounded(
    engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heating, KEPT, 8)
    commits = [steady(10, first=10 * n) for n in range(20)]
    hot = Hot(20)
    for n, view in enumerate(growing(tmp_path, commits)):
        assert ids(engine, replace(view, hot=hot), 4) == list(range(10 * n + 6, 10 * n + 10))
        assert sum(kept.table.num_rows for kept in hot._kept.values()) <= 4 * 8
