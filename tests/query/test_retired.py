"""Answers over days that are not kept any more: they say so, and past states that had them are
refused.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pytest

from k2.errors import Refused
from k2.query import Past, Reader, Replayed, Selection, open_reader
from tests.ingest.retiring import at_noon, keep_of, retire
from tests.query.make import trade
from tests.query.test_reader import Market

TIER_3 = "[trades]\ntier_3 = 2\n"
RETIRED = "were retired and are not in this answer"


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    """Three trades a day of A (tier 1) and C (tier 3), on five days; a commit for each day."""
    made = Market(tmp_path)
    for day in range(5):
        made.append(
            [
                trade(symbol, at_noon(day) + n * timedelta(hours=1), str(day * 10 + n + 1))
                for n in range(3)
                for symbol in ("A", "C")
            ]
        )
        made.commit()
    yield made
    made.close()


@pytest.fixture
def reader(market: Market) -> Iterator[Reader]:
    with open_reader(market.folder, follow=True, hot_rows=1000) as opened:
        yield opened


def notes(meta: dict[str, object]) -> list[str]:
    found = meta["notes"]
    assert isinstance(found, list)
    return [note for note in found if RETIRED in note]


def commit_of(market: Market, day: int) -> str:
    """The snapshot that had the days up to that one."""
    rows = market.lake.commits_of("trades").to_pylist()
    return str(rows[day]["snapshot_id"])


def test_an_answer_that_touches_such_days_says_so(market: Market, reader: Reader) -> None:
    reader.records("trades", Selection(("C",)), last=20)  # in memory from now on
    done = retire(market, keep_of(market.folder, TIER_3), at_noon(5))
    assert (done.rows, done.lots[0].last_day) == (9, date(2024, 3, 6))

    answer = reader.records("trades", Selection(("C",)))
    assert answer.table.num_rows == 6
    (told,) = notes(answer.meta)
    assert told.startswith("trades of sim on 3 days from 2024-03-04 to 2024-03-06 ")
    assert notes(reader.records("trades", Selection(("A",))).meta) == []
    assert notes(reader.records("trades", Selection()).meta)
    assert notes(reader.records("trades", Selection(exchanges=("ASX",))).meta) == []
    late = Selection(("C",), start=at_noon(3))
    assert notes(reader.records("trades", late).meta) == []
    # What lies before the newest was not asked for; more than there is, was.
    newest = reader.records("trades", Selection(("C",)), last=2)
    assert (newest.table.num_rows, notes(newest.meta)) == (2, [])
    every = reader.records("trades", Selection(("C",)), last=20)
    assert (every.table.num_rows, len(notes(every.meta))) == (6, 1)
    assert notes(reader.sql("select count(*) from trades").meta)
    assert notes(reader.aggregate(Selection(("C",)), ("vwap",), "1d").meta)


def test_a_bar_of_such_a_day_is_not_known(market: Market, reader: Reader) -> None:
    reader.roll_up()
    before = reader.bars(Selection(("A",)), "1d").table
    retire(market, keep_of(market.folder, TIER_3), at_noon(5))
    reader.roll_up()
    assert reader.bars(Selection(("A",)), "1d").table.equals(before)
    asked = Selection(("C",), start=date(2024, 3, 5), end=date(2024, 3, 9))
    answer = reader.bars(asked, "1d", fill=True)
    assert answer.table["state"].to_pylist() == ["unknown", "unknown", "traded", "traded"]
    assert answer.table["complete"].to_pylist() == [False, False, True, True]
    assert len(notes(answer.meta)) == 1
    assert not any("gap" in str(note) for note in answer.meta["notes"])  # type: ignore[attr-defined]


def test_a_past_state_that_had_such_days_is_refused(market: Market, reader: Reader) -> None:
    second = commit_of(market, 1)
    retire(market, keep_of(market.folder, TIER_3), at_noon(5))
    market.append([trade("C", at_noon(4), "99")])
    market.commit()
    now = str(market.lake.table("trades").snapshot().snapshot_id)

    def asked(symbol: str, as_of: str, **more: object) -> int:
        selection = Selection((symbol,), **more)  # type: ignore[arg-type]
        return reader.records("trades", selection, as_of=as_of).table.num_rows

    with pytest.raises(Refused, match="were retired since") as error:
        asked("C", second)
    assert "commit 6 or a later one" in str(error.value.expected)
    assert "sim on 2 days from 2024-03-04 to 2024-03-05" in str(error.value.place)
    assert asked("A", second) == 6
    # Of days that had no such rows by then, and of those that were gone by then, nothing is missed.
    assert asked("C", second, start=at_noon(2)) == 0
    assert asked("C", now) == 7
    assert asked("C", commit_of(market, 4), start=at_noon(3)) == 6
    for question in (reader.symbols, reader.stats):
        with pytest.raises(Refused, match="were retired since"):
            question(as_of=second)
    with pytest.raises(Refused, match="were retired since"):
        reader.summary("C", date(2024, 3, 4), as_of=second)
    with pytest.raises(Refused, match="were retired since"):
        reader.bars(Selection(("C",)), "1h", as_of=second)
    with pytest.raises(Refused, match="were retired since"):
        next(reader.replay(Replayed(("trades",), Selection(("C",)), Past(second))))
    assert sum(p.records.num_rows for p in reader.replay(_of_a(second))) == 6


def _of_a(as_of: str) -> Replayed:
    return Replayed(("trades",), Selection(("A",)), Past(as_of))


def test_a_page_goes_on_only_while_its_rows_are_there(market: Market, reader: Reader) -> None:
    first = reader.records("trades", Selection(("C",)), limit=4)
    other = reader.records("trades", Selection(("A",)), limit=4)
    retire(market, keep_of(market.folder, TIER_3), at_noon(5))
    with pytest.raises(Refused, match="were retired since"):
        reader.records("trades", Selection(("C",)), limit=4, after=first.next)
    page = reader.records("trades", Selection(("A",)), limit=4, after=other.next)
    assert page.table.num_rows == 4


def test_the_ledger_lists_them(market: Market, reader: Reader) -> None:
    retire(market, keep_of(market.folder, TIER_3), at_noon(5))
    answer = reader.ledger("retired")
    assert answer.table["records"].to_pylist() == [3, 3, 3]
    assert set(answer.table["rule"].to_pylist()) == {"[trades] tier_3 = 2"}
    assert answer.table["symbols"].to_pylist() == ['["C"]'] * 3
