"""What was asked before is answered from memory, and never when anything new belongs to it."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from k2.query import Reader, Selection, open_reader
from k2.query.duckdb import DuckDB
from k2.query.port import Source, Statement
from k2.query.records import Wanted, fetch_records
from k2.query.remembered import Remembered
from tests.query.make import random_trades, split, view_of
from tests.query.test_reader import NOW, Market, ids

DAWN = datetime(2024, 3, 4, tzinfo=UTC)


class Counting:
    """An engine that counts what it is asked."""

    def __init__(self, engine: DuckDB) -> None:
        self.engine = engine
        self.asked = 0

    def run(self, statement: Statement, sources: Mapping[str, Source | pa.Table]) -> pa.Table:
        self.asked += 1
        return self.engine.run(statement, sources)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


def random_question(r: np.random.Generator) -> Any:
    """A question of a kind, to be asked of several readers."""
    symbols = (("A",), ("B", "C"), ())[int(r.integers(3))]
    start = [None, DAWN + timedelta(hours=int(r.integers(15, 24)))][int(r.integers(2))]
    end = [None, DAWN + timedelta(hours=int(r.integers(24, 30)))][int(r.integers(2))]
    selection = Selection(symbols, (), start, end)
    last = [None, int(r.integers(1, 50))][int(r.integers(2))]
    kind = int(r.integers(4))

    def ask(reader: Reader) -> pa.Table:
        if kind == 0:
            return reader.records("trades", selection, last=last).table
        if kind == 1:
            return reader.bars(selection, "1m", last=last, fill=bool(last)).table
        if kind == 2:
            return reader.aggregate(selection, ("vwap", "twap"), "5m").table
        return reader.records("trades", selection, limit=last or 7).table

    return ask


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_those_of_an_engine_without_memory(market: Market, seed: int) -> None:
    r = np.random.default_rng(seed)
    asked: list[Any] = []
    with (
        open_reader(market.folder, clock=lambda: NOW) as plain,
        open_reader(market.folder, follow=True, answers=1 << 20, clock=lambda: NOW) as keeping,
    ):
        for step in range(8):
            rows = random_trades(
                seed * 100 + step,
                40,
                exchanges=("sim", "ASX"),
                start=DAWN + timedelta(hours=int(r.integers(14, 26))),
                symbols=(("A", "B", "C"), ("C",), ("A",))[step % 3],
            )
            market.append(rows)
            if step % 2 == 0:
                market.commit()
            asked.append(random_question(r))
            # The old questions as well: what was kept for them may hold no longer.
            for ask in [*asked, *asked[-3:]]:
                assert ask(keeping).equals(ask(plain))


def test_a_question_is_answered_once(engine: DuckDB, tmp_path: Path) -> None:
    rows = random_trades(1, 200)
    view = view_of(tmp_path, split(rows, [100])[:2])
    counting = Counting(engine)
    keeping = Remembered(counting, 1 << 20)
    for symbols in (("A",), ("B",), ("A",), ("B",)):
        fetch_records(keeping, view, Selection(symbols), Wanted())
    assert counting.asked == 2
    # What binds other values of other types is another question.
    for value in ("1", "2"):
        keeping.run(Statement("select $v as v", {"v": int(value)}), {})
        keeping.run(Statement("select $v as v", {"v": value}), {})
    assert counting.asked == 6


def test_it_asks_anew_where_the_log_holds_rows(engine: DuckDB, tmp_path: Path) -> None:
    rows = random_trades(2, 200)
    view = view_of(tmp_path, [rows[:150]], rows[150:])
    counting = Counting(engine)
    keeping = Remembered(counting, 1 << 20)
    for _ in range(2):
        fetch_records(keeping, view, Selection(("A",)), Wanted())
    assert counting.asked == 2
    # None of them can be before all of these.
    end = min(row["timestamp"] for row in rows[150:])
    for _ in range(2):
        fetch_records(keeping, view, Selection(("A",), end=end), Wanted())
    assert counting.asked == 3


def test_what_is_kept_is_bounded(engine: DuckDB) -> None:
    counting = Counting(engine)
    keeping = Remembered(counting, 80_000)
    for _ in range(2):
        for n in range(20):
            made = Statement("select range + $n as n from range(1000)", {"n": n})
            assert keeping.run(made, {}).num_rows == 1000
    # 8,000 bytes each: the oldest have gone each time.
    assert counting.asked == 40
    assert keeping._bytes <= 80_000
    for _ in range(2):
        keeping.run(Statement("select range as n from range(2000)"), {})
    assert counting.asked == 42, "one that takes more than an eighth is not kept"


def test_other_symbols_leave_an_answer_as_it_is(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.append(random_trades(3, 100, symbols=("A",)))
    market.commit()
    asked: list[str] = []
    run = DuckDB.run

    def counted(self: DuckDB, statement: Statement, sources: Any) -> pa.Table:
        asked.append(statement.text)
        return run(self, statement, sources)

    with open_reader(market.folder, follow=True, answers=1 << 20, clock=lambda: NOW) as reader:
        first = reader.bars(Selection(("A",)), "1m")
        monkeypatch.setattr(DuckDB, "run", counted)
        market.append(random_trades(4, 100, symbols=("B",)))
        assert reader.bars(Selection(("A",)), "1m").table.equals(first.table)
        market.commit()
        again = reader.bars(Selection(("A",)), "1m")
        assert again.table.equals(first.table)
        # The meta is that of the state which it was asked of.
        assert again.meta["snapshots"] != first.meta["snapshots"]
        assert asked == []
        market.append(random_trades(5, 1, symbols=("A",)))
        assert not reader.bars(Selection(("A",)), "1m").table.equals(first.table)
        assert asked
        assert len(ids(reader.records("trades", Selection(("A",))).table)) == 101
