"""All records, some at a time: the same rows as in one answer, of one state, from any row on."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from k2.errors import BadInput, Unavailable
from k2.query import Bulk, Reader, Selection, open_reader, parse_conditions
from k2.query.duckdb import DuckDB
from tests.query.make import random_trades
from tests.query.test_reader import NOW, Market, ids

NOON = datetime(2024, 3, 4, 12, tzinfo=UTC)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(market: Market) -> Iterator[Reader]:
    with open_reader(market.folder, clock=lambda: NOW) as opened:
        yield opened


def tables(bulk: Bulk) -> list[pa.Table]:
    return list(iter(bulk.read, None))


def joined(bulk: Bulk) -> pa.Table:
    return pa.concat_tables([bulk.columns.empty_table(), *tables(bulk)]).combine_chunks()


def grown(market: Market, seed: int) -> None:
    """Three commits and a tail, later ones with records of earlier times."""
    for part in range(4):
        start = datetime(2024, 3, 4, 22 - 3 * (part % 2), tzinfo=UTC)
        market.append(
            random_trades(seed * 10 + part, 130, exchanges=("sim", "ASX"), ties=9, start=start)
        )
        if part < 3:
            market.commit()


@pytest.mark.parametrize("seed", range(3))
def test_it_gives_the_rows_of_one_answer(market: Market, reader: Reader, seed: int) -> None:
    grown(market, seed)
    end = NOON + timedelta(hours=9)
    asked: list[tuple[Selection, dict[str, Any]]] = [
        (Selection(), {}),
        (Selection(("A",)), {}),
        (Selection(("A", "C"), ("ASX",), NOON, end), {}),
        (Selection(where=parse_conditions(["price>=1", "side=BUY"])), {}),
        (Selection(("Z",)), {}),
        (Selection(), {"fields": ("price", "commit_sequence")}),
        (Selection(), {"history": True}),
        (Selection(), {"as_known_at": "2024-03-04T20:00:00Z"}),
    ]
    for selection, more in asked:
        whole = reader.records("trades", selection, **more)
        for rows in (11, 128, 10_000):
            bulk = reader.bulk("trades", selection, rows=rows, **more)
            found = tables(bulk)
            assert all(0 < table.num_rows <= rows for table in found)
            assert joined(reader.bulk("trades", selection, rows=rows, **more)).equals(
                whole.table.combine_chunks()
            )
            meta = bulk.meta()
            assert meta["rows"] == bulk.rows == whole.table.num_rows
            told = ("snapshots", "offsets", "corrections", "as_known_at", "notes")
            assert {name: meta[name] for name in told} == {n: whole.meta[n] for n in told}


def test_it_stays_with_the_state_it_began_in(market: Market, reader: Reader) -> None:
    grown(market, 5)
    expected = ids(reader.records("trades", Selection()).table)
    bulk = reader.bulk("trades", Selection(), rows=50)
    seen: list[str] = []
    while (table := bulk.read()) is not None:
        seen += ids(table)
        market.append(random_trades(len(seen), 20, start=datetime(2024, 3, 4, 23, tzinfo=UTC)))
        market.commit()
    assert seen == expected


def test_another_goes_on_where_one_was_left(market: Market, reader: Reader) -> None:
    grown(market, 6)
    expected = ids(reader.records("trades", Selection(("A", "B"))).table)
    first = reader.bulk("trades", Selection(("A", "B")), rows=40)
    seen = ids(first.read()) + ids(first.read())
    market.append(random_trades(99, 50, start=datetime(2024, 3, 5, tzinfo=UTC)))
    rest = reader.bulk("trades", Selection(("A", "B")), rows=70, after=first.next)
    assert seen + ids(joined(rest)) == expected
    # A page goes on there as well, and a download behind a page.
    page = reader.records("trades", Selection(("A", "B")), limit=30, after=first.next)
    assert ids(page.table) == expected[len(seen) : len(seen) + 30]
    rest = reader.bulk("trades", Selection(("A", "B")), after=page.next)
    assert ids(joined(rest)) == expected[len(seen) + 30 :]
    with pytest.raises(BadInput, match="page token"):
        reader.bulk("trades", Selection(("A",)), after=first.next)


def test_what_failed_is_read_again(
    market: Market, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown(market, 7)
    expected = ids(reader.records("trades", Selection()).table)
    bulk = reader.bulk("trades", Selection(), rows=60)
    seen = ids(bulk.read())
    run, failing = DuckDB.run, [True, True]

    def fails(*given: Any) -> pa.Table:
        if failing:
            failing.pop()
            raise Unavailable("a fault that the test makes")
        return run(*given)

    monkeypatch.setattr(DuckDB, "run", fails)
    for _ in range(2):
        with pytest.raises(Unavailable):
            bulk.read()
    assert seen + ids(joined(bulk)) == expected


def test_what_is_asked_in_vain_shows_before_anything_is_given(
    market: Market, reader: Reader
) -> None:
    grown(market, 8)
    with pytest.raises(BadInput, match="no column 'colour'"):
        reader.bulk("trades", Selection(), fields=("colour",))
    with pytest.raises(BadInput, match="only trades have a history"):
        reader.bulk("quotes", Selection(), history=True)
