"""Every fast way gives what a plain scan in Python gives: with all of them, and with each left out.

The ways: the index of files, roll-ups (and their minutes in memory), hot rows, decoded copies,
answers that are kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.lake import DataFileRef
from k2.query import copies as keeping
from k2.query import rollup as rolling
from k2.query import view as looking
from k2.query.bars import BarsWanted, make_bars
from k2.query.duckdb import DuckDB
from k2.query.hot import Hot
from k2.query.interval import parse_interval
from k2.query.port import Engine, Pin
from k2.query.records import Wanted, fetch_records
from k2.query.remembered import Remembered
from k2.query.selection import Selection, parse_conditions
from k2.query.view import View
from tests.query import reference
from tests.query.make import Files, Row, order_of, random_trades, split, view_of
from tests.query.test_bars import INTERVALS
from tests.query.test_rollup import rolled
from tests.query.test_slices import copied

BEGIN = datetime(2024, 3, 4, 22, tzinfo=UTC)
WAYS = ("index", "rollups", "copies")


@pytest.fixture(autouse=True)
def _of_small_files_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rolling, "_GAIN", 0)
    monkeypatch.setattr(keeping, "_SPARE_BYTES", 0)


@dataclass(frozen=True)
class Blind:
    """An index that knows of no bounds: each file may hold whatever is asked for."""

    of: Files

    @property
    def rows(self) -> int:
        return self.of.rows

    @property
    def newest(self) -> int | None:
        return self.of.newest

    def since(self, commit: int) -> tuple[DataFileRef, ...]:
        return self.of.since(commit)

    def select(self, *, as_of: int | None = None, **_: object) -> tuple[DataFileRef, ...]:
        found = self.of.select(as_of=as_of)
        if not found:
            return ()
        # Of all of time, the bars of each exchange's days would be made: that takes long.
        times = [of for file in found for of in (file.min_timestamp, file.max_timestamp) if of]
        wide: dict[str, Any] = {"min_timestamp": min(times), "max_timestamp": max(times)}
        return tuple(replace(file, min_symbol=None, max_symbol=None, **wide) for file in found)


def ways(engine: DuckDB, folder: Path, view: View) -> dict[str, tuple[Engine, View]]:
    """Engine and view with every fast way, with each of them left out, and with none."""
    every = copied(folder, rolled(engine, folder, view))
    assert isinstance(view.index, Files)
    without: dict[str, dict[str, Any]] = {
        "index": {"index": Blind(view.index)},
        "rollups": {"rollups": None},
        "copies": {"copies": None},
    }
    none = {name: value for way in without.values() for name, value in way.items()}

    def keeping_answers() -> Engine:
        return Remembered(engine, 1 << 26)

    def hot() -> View:
        return replace(every, hot=Hot(10**6))

    return {
        "all": (keeping_answers(), hot()),
        **{way: (keeping_answers(), replace(hot(), **without[way])) for way in WAYS},
        "hot": (keeping_answers(), every),
        "answers": (engine, hot()),
        "none": (engine, replace(every, **none)),
    }


def known(rows: Sequence[Row], selection: Selection, dear: bool) -> list[Row]:
    """The rows that are asked for, in total order, by looking at each."""
    return sorted(
        (
            row
            for row in rows
            if (not selection.symbols or row["symbol"] in selection.symbols)
            and (not selection.exchanges or row["exchange"] in selection.exchanges)
            and (selection.start is None or row["timestamp"] >= selection.start)
            and (selection.end is None or row["timestamp"] < selection.end)
            and (not dear or row["price"] >= 1)
        ),
        key=order_of,
    )


PLACE = ("log_topic", "log_partition", "log_offset", "price")


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    count=st.integers(1, 200),
    cuts=st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
    ties=st.sampled_from([1, 5, 50]),
    names=st.sampled_from([("sim",), ("sim", "ASX")]),
    asked=st.sampled_from([(), ("sim",)]),
    symbols=st.sampled_from([(), ("A",), ("C", "B"), ("Z",)]),
    edges=st.tuples(*[st.none() | st.integers(-30, 400)] * 2),
    dear=st.booleans(),
    number=st.integers(1, 60),
    interval=st.sampled_from(sorted(INTERVALS)),
    all_trades=st.booleans(),
    pin=st.none() | st.integers(1, 3),
    is_long=st.booleans(),
    loaded=st.booleans(),
)
def test_every_way_tells_what_a_plain_scan_tells(
    engine: DuckDB,
    seed: int,
    count: int,
    cuts: list[int],
    ties: int,
    names: tuple[str, ...],
    asked: tuple[str, ...],
    symbols: tuple[str, ...],
    edges: tuple[int | None, int | None],
    dear: bool,
    number: int,
    interval: str,
    all_trades: bool,
    pin: int | None,
    is_long: bool,
    loaded: bool,
) -> None:
    rows = random_trades(seed, count, exchanges=names, ties=ties, start=BEGIN, loaded=loaded)
    *commits, tail = split(rows, cuts)
    start, end = (None if edge is None else BEGIN + edge * timedelta(minutes=1) for edge in edges)
    if start is not None and end is not None and start >= end:
        start, end = end, start + timedelta(minutes=1)
    where = parse_conditions(["price>=1"] if dear else [])
    selection = Selection(symbols, asked, start=start, end=end, where=where)
    with TemporaryDirectory() as folder:
        view = view_of(Path(folder), commits, tail)
        if pin is not None and pin <= len(commits):
            view = replace(view, pin=Pin(pin))
            rows = [row for part in commits[:pin] for row in part]
        expected = known(rows, selection, dear)
        bars = reference.bars(expected, INTERVALS[interval], all_trades=all_trades)
        every = BarsWanted(parse_interval(interval), all_trades=all_trades)
        with patch.object(looking, "_LONG_TAIL", 3 if is_long else 10**6):
            for way, (asked_of, of) in ways(engine, Path(folder), view).items():
                # Once more: what is hot or kept by now is told from memory.
                for _ in range(2):
                    for wanted, cut in _asked(number, expected):
                        found, _ = fetch_records(asked_of, of, selection, wanted)
                        assert _places(found) == cut, (way, wanted)
                    assert make_bars(asked_of, of, selection, every).to_pylist() == bars, way


def _asked(number: int, rows: Sequence[Row]) -> list[tuple[Wanted, list[tuple[Any, ...]]]]:
    """All rows, the newest and the oldest of them, each as wanted and as it should come."""
    all_ = [tuple(row[name] for name in PLACE) for row in rows]
    return [
        (Wanted(fields=PLACE), all_),
        (Wanted(fields=PLACE, last=number), all_[-number:]),
        (Wanted(fields=PLACE, limit=number), all_[:number]),
    ]


def _places(found: pa.Table) -> list[tuple[Any, ...]]:
    columns: list[Callable[[], list[Any]]] = [found[name].to_pylist for name in PLACE]
    return list(zip(*(column() for column in columns), strict=True))
