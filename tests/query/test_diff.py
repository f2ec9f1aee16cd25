"""What came between two states, against the plain reference: rows with the commit of each."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from k2.errors import BadInput, NotFound
from k2.lake import tag_closes
from k2.query import Reader, Selection, open_reader
from k2.query.diff import ADDED
from tests.query.make import EXCHANGES, Row, random_trades
from tests.query.rewriting import compact
from tests.query.test_pins import bust
from tests.query.test_reader import Market

NOW = datetime(2027, 11, 24, tzinfo=UTC)
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    made = Market(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(market: Market) -> Iterator[Reader]:
    with open_reader(market.folder, clock=lambda: NOW) as opened:
        yield opened


def added(rows: list[Row], first: dict[str, date]) -> list[dict[str, Any]]:
    """The rows by symbol and exchange; those are late that are of a day before the first state."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["symbol"], row["exchange"]), []).append(row)
    return [
        {
            "symbol": symbol,
            "exchange": exchange,
            "rows": len(group),
            "first_timestamp": min(row["timestamp"] for row in group),
            "last_timestamp": max(row["timestamp"] for row in group),
            "late": sum(row["exchange_date"] < first[exchange] for row in group),
            "corrections": 0,
        }
        for (symbol, exchange), group in sorted(groups.items())
    ]


def found(
    reader: Reader, since: str, until: str | None = None, **more: Any
) -> list[dict[str, Any]]:
    answer = reader.diff.between(since, until, **more)
    assert answer.table.schema == ADDED
    rows: list[dict[str, Any]] = answer.table.to_pylist()
    return rows


@pytest.fixture
def commits(market: Market) -> list[list[Row]]:
    """Four commits, each of rows of two exchanges: the days go up, and some are late."""
    brought = []
    today = datetime.now(UTC)
    for seed, days in enumerate((-3, 1, -5, 2)):
        start = today + timedelta(days=days - 4)
        rows = random_trades(seed, 60, exchanges=("sim", "ASX"), start=start, ties=4)
        market.append(rows)
        market.commit()
        brought.append(rows)
    return brought


def states(reader: Reader) -> list[str]:
    """Snapshot ids, oldest first."""
    return [str(i) for i in reader.snapshots().table["snapshot_id"].to_pylist()][::-1]


@pytest.mark.parametrize("rewrite", [None, False, True])
def test_between_any_two_states_lie_the_rows_of_the_commits_between(
    market: Market, reader: Reader, commits: list[list[Row]], rewrite: bool | None
) -> None:
    ids = states(reader)
    days = {
        name: (datetime.now(UTC) + of.day_roll).astimezone(ZoneInfo(of.zone)).date()
        for name, of in EXCHANGES.items()
    }
    if rewrite is not None:
        compact(market.lake.table("trades"), buckets=rewrite)
    for first in range(4):
        for last in range(first, 4):
            wanted = [row for rows in commits[first + 1 : last + 1] for row in rows]
            assert found(reader, ids[first], ids[last]) == added(wanted, days)
    assert found(reader, LONG_AGO, ids[1]) == added(
        commits[0] + commits[1], dict.fromkeys(EXCHANGES, date(2020, 1, 1))
    )
    mine = Selection(("A", "C"), ("ASX",))
    wanted = [r for rows in commits[1:] for r in rows]
    wanted = [r for r in wanted if r["exchange"] == "ASX" and r["symbol"] in ("A", "C")]
    assert found(reader, ids[0], selection=mine) == added(wanted, days)


def test_what_is_in_the_log_alone_was_not_added_yet(
    market: Market, reader: Reader, commits: list[list[Row]]
) -> None:
    ids = states(reader)
    before = found(reader, ids[2])
    market.append(random_trades(9, 20))
    assert found(reader, ids[2]) == before
    market.commit()
    assert sum(row["rows"] for row in found(reader, ids[2])) == 80
    assert sum(row["rows"] for row in found(reader, ids[3])) == 20


def test_meta_tells_both_states(reader: Reader, commits: list[list[Row]]) -> None:
    ids = states(reader)
    meta: Any = reader.diff.between(ids[1], ids[2]).meta
    assert (meta["since"]["commit"], meta["since"]["snapshot_id"]) == (2, ids[1])
    assert (meta["until"]["commit"], meta["until"]["snapshot_id"]) == (3, ids[2])
    assert reader.diff.between(LONG_AGO).meta["since"]["commit"] == 0  # type: ignore[index]


def test_corrections_are_counted_beside(
    market: Market, reader: Reader, commits: list[list[Row]]
) -> None:
    ids = states(reader)
    some = [row for row in commits[0] if row["symbol"] == "A" and row["exchange"] == "sim"][:3]
    when = datetime.now(UTC) - timedelta(minutes=3)
    for row in some:
        bust(market, row, when)
    market.commit()
    rows = {(r["symbol"], r["exchange"]): r for r in found(reader, ids[3])}
    assert list(rows) == [("A", "sim")]
    assert rows["A", "sim"] == {
        "symbol": "A", "exchange": "sim", "rows": 0, "first_timestamp": None,
        "last_timestamp": None, "late": 0, "corrections": 3,
    }  # fmt: skip
    everything = found(reader, LONG_AGO)
    assert sum(row["corrections"] for row in everything) == 3
    # Busted or not, they are rows that were added.
    assert sum(row["rows"] for row in everything) == 240
    assert found(reader, ids[3], selection=Selection(("B",))) == []
    assert [row["rows"] for row in found(reader, LONG_AGO, kind="corrections")] == [3]


def test_tags_and_times_name_states(
    market: Market, reader: Reader, commits: list[list[Row]]
) -> None:
    ids = states(reader)
    market.lake.tag("trades", "first", 1)
    market.lake.tag("trades", "third", 3)
    assert found(reader, "first", "third") == found(reader, ids[0], ids[2])
    times = reader.snapshots().table["committed_at"].to_pylist()[::-1]
    assert found(reader, times[0].isoformat(), times[2].isoformat()) == found(
        reader, ids[0], ids[2]
    )


def test_the_first_states_day_is_that_of_the_time_that_was_asked_for(
    market: Market, reader: Reader, commits: list[list[Row]]
) -> None:
    future = NOW - timedelta(days=1)  # by the reader's clock: nothing was committed since
    market.append(random_trades(9, 20))
    market.commit()
    assert found(reader, future.isoformat()) == []


@pytest.mark.parametrize(
    ("since", "until", "error", "told"),
    [
        ("nowhere", None, NotFound, "no tag nowhere"),
        ("first", "nowhere", NotFound, "no tag nowhere"),
        ("third", "first", BadInput, "first state is after the second"),
        ("first", LONG_AGO, NotFound, "nothing was committed to trades by"),
        ("2126-01-01T00:00:00Z", None, BadInput, "yet to come"),
        ("12", None, NotFound, "no snapshot 12"),
    ],
)
def test_what_cannot_be_compared(
    market: Market,
    reader: Reader,
    commits: list[list[Row]],
    since: str,
    until: str | None,
    error: type[Exception],
    told: str,
) -> None:
    market.lake.tag("trades", "first", 1)
    market.lake.tag("trades", "third", 3)
    with pytest.raises(error, match=told):
        reader.diff.between(since, until)


def test_nothing_there_is_told(reader: Reader) -> None:
    with pytest.raises(NotFound, match="nothing was committed to trades yet"):
        reader.diff.between(LONG_AGO)
    with pytest.raises(NotFound, match="no records called"):
        reader.diff.between(LONG_AGO, kind="trade")


def test_two_closes_are_a_day_apart(market: Market, reader: Reader) -> None:
    now = datetime.now(UTC)
    market.append(random_trades(1, 30, start=now))
    market.commit()
    names = tag_closes(market.lake, now + timedelta(days=2))
    assert names
    market.append(random_trades(2, 10, start=now))
    market.commit()
    assert sum(row["rows"] for row in found(reader, names[-1])) == 10
