"""Records from decoded copies are those of the engine: same rows, same order, in every state."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.errors import BadInput, Refused
from k2.query import copies as keeping
from k2.query.copies import Copies
from k2.query.duckdb import DuckDB
from k2.query.page import Page
from k2.query.port import Pin
from k2.query.records import Wanted, fetch_records
from k2.query.selection import Selection, parse_conditions
from k2.query.stopping import limited
from k2.query.view import STANDING, View
from tests.query.make import (
    Files,
    Row,
    order_of,
    random_trades,
    ranges_of,
    split,
    trade,
    view_of,
    write_file,
)

BEGIN = datetime(2024, 3, 4, 22, tzinfo=UTC)


@pytest.fixture(autouse=True, scope="module")
def _disks_of_any_size() -> Iterator[None]:
    before = keeping._SPARE_BYTES
    keeping._SPARE_BYTES = 0  # type: ignore[misc]
    yield
    keeping._SPARE_BYTES = before  # type: ignore[misc]


def copied(folder: Path, view: View, *, but: Sequence[int] = ()) -> View:
    """The view with copies of its files, but of those at these places."""
    copies = Copies(folder, 10**9)
    wanted = [file for n, file in enumerate(view.select()) if n not in but]
    for _ in range(2):
        copies.of(view, wanted)
    copies.work()
    return replace(view, copies=copies)


class Unasked:
    """An engine that must not be asked."""

    def run(self, *asked: object) -> object:
        raise AssertionError(f"the engine was asked: {asked}")


def pages(
    engine: Any, view: View, selection: Selection, size: int, fields: tuple[str, ...]
) -> list[Any]:
    """All pages of the selection."""
    found, page = fetch_records(engine, view, selection, Wanted(limit=size, fields=fields))
    tables = [found]
    while page is not None:
        assert isinstance(page, Page)
        pinned = replace(view, pin=page.pin)
        found, page = fetch_records(
            engine, pinned, selection, Wanted(limit=size, fields=fields), after=page
        )
        tables.append(found)
    return tables


CONDITIONS = [
    ["price>=1"],
    ["price<0.5", "price_forming=true"],
    ["side!=BUY"],
    ["source=here"],
    ["source!=here"],
    ["log_offset<=40", "exchange_date=2024-03-05"],
    ["timestamp>2024-03-04T23:00:00Z"],
    ["trade_id>3"],
    ["timestamp_nanos=1", "quantity<1000"],
]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 250),
    cuts=st.lists(st.integers(0, 10**6), max_size=4),
    ties=st.sampled_from([1, 5, 50]),
    exchanges=st.sampled_from([("sim",), ("sim", "ASX", "NYSE")]),
    asked=st.sampled_from([(), ("sim",), ("ASX", "NYSE"), ("nowhere",)]),
    symbols=st.sampled_from([("A",), ("B", "A"), ("C", "C", "Z"), ("Z",)]),
    edges=st.tuples(*[st.none() | st.integers(-30, 400)] * 2),
    last=st.none() | st.integers(1, 40),
    size=st.none() | st.integers(1, 60),
    fields=st.sampled_from([(), ("price",), ("commit_sequence", "symbol", "log_topic")]),
    where=st.sampled_from([[], [], *CONDITIONS]),
    pin=st.sampled_from([None, 1, 2, "ranges"]),
    but=st.lists(st.integers(0, 4), max_size=1),
    lakes=st.booleans(),
    lacking=st.booleans(),
)
def test_records_are_the_same_from_copies_and_from_files(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    ties: int,
    exchanges: tuple[str, ...],
    asked: tuple[str, ...],
    symbols: tuple[str, ...],
    edges: tuple[int | None, int | None],
    last: int | None,
    size: int | None,
    fields: tuple[str, ...],
    where: list[str],
    pin: int | str | None,
    but: list[int],
    lakes: bool,
    lacking: bool,
) -> None:
    rows = random_trades(seed, count, exchanges=exchanges, ties=ties, start=BEGIN)
    *commits, tail = split(rows, cuts)
    if lacking:
        for row in rows[: count // 2]:
            row["side"], row["source"] = "UNKNOWN", "here"
    start, end = (None if edge is None else BEGIN + edge * timedelta(minutes=1) for edge in edges)
    if start is not None and end is not None and start >= end:
        start, end = end, start + timedelta(minutes=1)
    conditions = parse_conditions(where)
    selection = Selection(symbols, asked, start=start, end=end, where=conditions)
    with TemporaryDirectory() as name:
        folder = Path(name)
        order = _lakes_order if lakes else order_of
        refs = tuple(
            write_file(folder, part, n, order=order, drop=["side"] if lacking and n == 1 else [])
            for n, part in enumerate(commits, 1)
            if part
        )
        view = replace(view_of(folder, [], tail), index=Files(refs), sequence=len(commits))
        view = replace(view, exchanges=view_of(folder, commits, tail).exchanges)
        if pin == "ranges":
            view = replace(view, pin=Pin(len(commits), ranges_of(tail[: len(tail) // 2])))
        elif isinstance(pin, int) and pin <= len(commits):
            view = replace(view, pin=Pin(pin))
        quick = copied(folder, view, but=but)
        if size is not None:
            own = fields or view.columns.names
            plain = pages(engine, view, selection, size, tuple(own))
            made = pages(engine, quick, selection, size, tuple(own))
            assert [table.schema for table in made] == [table.schema for table in plain]
            assert [table.to_pylist() for table in made] == [t.to_pylist() for t in plain]
            return
        wanted = Wanted(last=last, fields=fields)
        expected, _ = fetch_records(engine, view, selection, wanted)
        found, _ = fetch_records(engine, quick, selection, wanted)
        assert found.schema == expected.schema
        assert found.equals(expected)
        found.validate(full=True)


def _lakes_order(row: Row) -> tuple[Any, ...]:
    """As the lake sorts the rows of a symbol: without the topic."""
    of = ("timestamp", "timestamp_nanos", "log_partition", "log_offset")
    return tuple(row[name] for name in of)


def rows_of(count: int, symbol: str = "A", first: int = 0) -> list[Row]:
    return [
        trade(symbol, BEGIN + timedelta(seconds=n), "1", offset=n, trade_id=str(n))
        for n in range(first, first + count)
    ]


def offsets(engine: Any, view: View, selection: Selection, **wanted: int) -> list[int]:
    found, _ = fetch_records(engine, view, selection, Wanted(**wanted, fields=("log_offset",)))
    return [int(n) for n in found["log_offset"].to_pylist()]


def test_the_engine_is_not_asked(tmp_path: Path) -> None:
    rows = rows_of(100) + rows_of(100, "B", 100)
    quick = copied(tmp_path, view_of(tmp_path, [rows[:150], rows[150:180]], rows[180:]))
    hour = Selection(("B",), start=BEGIN + timedelta(seconds=140), end=BEGIN + timedelta(hours=1))
    assert offsets(Unasked(), quick, hour) == list(range(140, 200))
    assert offsets(Unasked(), quick, hour, last=30) == list(range(170, 200))
    assert offsets(Unasked(), quick, hour, limit=30) == list(range(140, 170))
    both = Selection(("A", "B"), start=BEGIN + timedelta(seconds=90))
    assert offsets(Unasked(), quick, both, limit=20) == list(range(90, 110))
    assert offsets(Unasked(), replace(quick, pin=Pin(1)), hour) == list(range(140, 150))


@pytest.mark.parametrize(
    "more",
    [
        {"where": parse_conditions(["price_forming=true"])},
        {"symbols": ()},
        {"start": date(2024, 3, 4)},
    ],
)
def test_what_copies_do_not_tell_is_asked_of_the_engine(
    engine: DuckDB, tmp_path: Path, more: dict[str, Any]
) -> None:
    rows = rows_of(20)
    rows.append(trade("A", BEGIN, "1", exchange="ASX", offset=7))
    view = view_of(tmp_path, [rows])
    selection = replace(Selection(("A",)), **more)
    expected = offsets(engine, view, selection)
    assert offsets(engine, copied(tmp_path, view), selection) == expected
    with pytest.raises(AssertionError):
        offsets(Unasked(), copied(tmp_path, view), selection)


def test_what_was_corrected_is_corrected(engine: DuckDB, tmp_path: Path) -> None:
    rows = rows_of(10) + rows_of(10, "B", 10)
    view = view_of(tmp_path, [rows])
    quick = copied(tmp_path, view)
    bust = {name: rows[3].get(name) for name in STANDING.names} | {
        "action": "BUST",
        "price": None,
        "quantity": None,
        "corrections": 1,
    }
    busted = replace(quick, standing=STANDING.empty_table().from_pylist([bust], schema=STANDING))
    assert offsets(engine, busted, Selection(("A",))) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert offsets(Unasked(), quick, Selection(("A",))) == list(range(10))
    # As of a time before, by what was known, with history, beyond a state: the engine's.
    for state in (
        {"known_at": BEGIN + timedelta(seconds=4)},
        {"beyond": Pin(0, ranges_of(rows[:5]))},
    ):
        then = offsets(engine, replace(view, **state), Selection(("A",)))
        assert len(then) == 5
        assert offsets(engine, replace(quick, **state), Selection(("A",))) == then


def test_a_question_that_is_too_late_is_refused(tmp_path: Path) -> None:
    quick = copied(tmp_path, view_of(tmp_path, [rows_of(10)]))
    with limited(1e-9), pytest.raises(Refused, match="longer"):
        offsets(Unasked(), quick, Selection(("A",)))


def test_a_page_token_with_another_key_is_the_engines_to_refuse(
    engine: DuckDB, tmp_path: Path
) -> None:
    quick = copied(tmp_path, view_of(tmp_path, [rows_of(10)]))
    for key in (("x",), ("x", 0, "y", 0, 0)):
        with pytest.raises(BadInput):
            fetch_records(
                engine, quick, Selection(("A",)), Wanted(limit=2), after=Page(Pin(1), key)
            )


def test_many_rows_of_one_moment_are_told_apart(engine: DuckDB, tmp_path: Path) -> None:
    rows = [
        trade(
            "AB"[n % 2], BEGIN, "1", offset=(n * 7919) % 500, partition=n % 3,
            timestamp_nanos=n % 2, exchange=("sim", "ASX")[n % 5 == 0],
        )
        for n in range(500)
    ]  # fmt: skip
    view = view_of(tmp_path, [rows[:200], rows[200:400]], rows[400:])
    quick = copied(tmp_path, view)
    selection = Selection(("A", "B"))
    made, plain = (pages(engine, of, selection, 70, ()) for of in (quick, view))
    assert [table.to_pylist() for table in made] == [table.to_pylist() for table in plain]
