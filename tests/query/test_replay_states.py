"""Replays and streams over what changes beneath them: corrections, shed records, merged files."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from k2.lake import compact as compacting
from k2.lake import maintain
from k2.query import Past, Reader, Replay, Replayed, Selection, open_reader
from tests.ingest.test_shed import FIRST, append, bring_in, shedding, work
from tests.journeys.home import Home, open_home, start_maintenance, start_writer
from tests.query.make import random_trades, trade
from tests.query.test_corrections import MONDAY, TUESDAY, Corrected, about
from tests.query.test_reader import Market

TRADES = Replayed(("trades",), Selection())
LIVE = Replayed(("trades",), Selection(), live=True)
Told = list[tuple[str, str]]


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Corrected]:
    made = Corrected(tmp_path)
    yield made
    made.close()


@pytest.fixture
def reader(market: Corrected) -> Iterator[Reader]:
    with open_reader(market.folder) as opened:
        yield opened


def prices(reader: Reader, asked: Replayed = TRADES, after: str | None = None) -> list[int]:
    batches = reader.replay(asked, after=after)
    return [int(price) for one in batches for price in one.records["price"].to_pylist()]


def rest(replay: Replay) -> Told:
    """What there is to read now."""
    found: Told = []
    while (part := replay.read()) is not None:
        symbols, ids = part.records["symbol"].to_pylist(), part.records["trade_id"].to_pylist()
        found += zip(symbols, ids, strict=True)
    return found


# --- corrections


def test_trades_come_as_they_stood_when_the_replay_began(market: Corrected, reader: Reader) -> None:
    market.append([trade("A", MONDAY + timedelta(seconds=n), str(n + 1)) for n in range(10)])
    market.commit()
    market.correct(
        about(market.appended[2], "BUST", TUESDAY),
        about(market.appended[4], "CORRECT", TUESDAY, price=44),
    )
    assert prices(reader) == [1, 2, 4, 44, 6, 7, 8, 9, 10]
    first = next(reader.replay(TRADES, batch=3))
    market.correct(about(market.appended[7], "BUST", TUESDAY + timedelta(seconds=1)))
    market.commit()
    # The position holds the state of the corrections too.
    assert prices(reader, after=first.position) == [44, 6, 7, 8, 9, 10]
    assert prices(reader) == [1, 2, 4, 44, 6, 7, 9, 10]
    then = Replayed(
        ("trades",), Selection(), Past(as_known_at=(TUESDAY - timedelta(hours=1)).isoformat())
    )
    assert prices(reader, then) == [*range(1, 11)]


def test_what_arrives_comes_as_it_stands_and_corrections_are_records(
    market: Corrected, reader: Reader
) -> None:
    market.append([trade("A", MONDAY, "1"), trade("B", MONDAY, "2")])
    both = Replayed(("trades", "corrections"), Selection(), live=True)
    replay = reader.open_replay(both)
    part = replay.read()
    assert part is not None
    assert part.records["kind"].to_pylist() == ["trades"] * 2
    assert replay.read() is None
    market.append([trade("C", MONDAY, "3"), trade("D", MONDAY, "4")])
    market.correct(
        about(market.appended[2], "BUST", TUESDAY),
        about(market.appended[3], "CORRECT", TUESDAY, offset=1, price=40),
        about(market.appended[0], "BUST", TUESDAY, offset=2),
    )
    part = replay.read()
    assert part is not None
    found = [(r["kind"], r["symbol"], r["price"] and int(r["price"]), r["action"])
             for r in part.records.to_pylist()]  # fmt: skip
    assert sorted(found, key=str) == [
        ("corrections", "A", None, "BUST"),
        ("corrections", "C", None, "BUST"),
        ("corrections", "D", 40, "CORRECT"),
        ("trades", "D", 40, None),
    ]
    market.commit()
    assert replay.read() is None


# --- records that a writer leaves in the log


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path) as opened:
        yield opened


def keys(table: pa.Table) -> Told:
    symbols = table["symbol"].cast(pa.string()).to_pylist()
    return list(zip(symbols, table["trade_id"].to_pylist(), strict=True))


def test_what_was_seen_before_it_was_shed_is_not_told_again(home: Home, tmp_path: Path) -> None:
    everything = keys(append(home, 200))
    work(home)
    with open_reader(tmp_path) as reader:
        replay = reader.open_replay(LIVE)
        told = rest(replay)
        assert sorted(told) == sorted(everything)
        # Seen in the tail, then shed: it has left the state, and comes back later.
        seen = keys(append(home, 300, seed=2))
        assert sorted(rest(replay)) == sorted(seen)
        work(home, shedding())
        assert home.lake.table("trades").snapshot().shed
        assert rest(replay) == []
        resumed = replay.position.to_text(LIVE.question)
        # Shed before anybody saw it: it is told when it is brought in.
        unseen = keys(append(home, 250, seed=3))
        work(home, shedding(called="two"))
        first = rest(replay)
        assert sorted(first) == sorted(one for one in unseen if one[0] in FIRST)
        bring_in(home)
        assert not home.lake.table("trades").snapshot().shed
        later = rest(replay)
        assert sorted(later) == sorted(one for one in unseen if one[0] not in FIRST)
        # So it is for one that goes on at an older position.
        again = rest(reader.open_replay(LIVE, after=resumed))
        assert sorted(again) == sorted(unseen)
        assert rest(replay) == []


# --- files that are merged and removed beneath it


def test_a_replay_goes_on_over_files_that_were_merged(
    market: Corrected, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compacting, "MERGE_AT", 2)
    monkeypatch.setattr(compacting, "SMALL_DAY", 10)
    for n in range(4):
        market.append(random_trades(n, 50))
        market.commit()
    expected = [one for p in reader.replay(TRADES) for one in p.records["trade_id"].to_pylist()]
    assert len(expected) == 200
    live = reader.open_replay(LIVE)
    assert len(rest(live)) == 200
    batches = reader.replay(TRADES, batch=30)
    first = next(batches)
    seen = first.records["trade_id"].to_pylist()
    market.append(random_trades(9, 50))
    market.commit()
    before = len(market.lake.table("trades").snapshot().files)
    maintain(market.lake, "trades", after=timedelta(0))
    assert len(market.lake.table("trades").snapshot().files) < before
    # All rows stand in files of a later commit now: none of the old ones is told again.
    assert len(rest(live)) == 50
    assert rest(live) == []
    second = reader.replay(TRADES, batch=30, after=first.position)
    assert seen + [o for p in second for o in p.records["trade_id"].to_pylist()] == expected


@pytest.mark.slow
def test_a_stream_beside_writer_and_maintenance_in_processes_of_their_own(tmp_path: Path) -> None:
    """A feed appends, some of it late; processes commit, merge and remove; a stream breaks off
    again and again and goes on.
    """
    market = Market(tmp_path)
    market.append(random_trades(1, 400, exchanges=("sim", "ASX", "NYSE")))
    market.commit()
    helpers = [
        start_writer(tmp_path, None, until_caught_up=False),
        start_maintenance(tmp_path),
    ]
    asked = Replayed(("trades",), Selection(), live=True)
    told: list[str] = []
    after: str | None = None
    deadline = datetime.now(UTC) + timedelta(seconds=120)
    try:
        with open_reader(tmp_path) as reader:
            step = 0
            while len(told) < len(market.appended) or step < 120:
                assert datetime.now(UTC) < deadline, (len(told), len(market.appended))
                if step < 120:
                    late = datetime(2024, 3, 4, tzinfo=UTC) - timedelta(hours=step % 5)
                    rows = random_trades(step, 25, start=late, exchanges=("sim", "ASX", "NYSE"))
                    market.append(rows)
                step += 1
                replay = reader.open_replay(asked, batch=(10, 10_000)[step % 2], after=after)
                for _ in range(1 + step % 3):
                    if (part := replay.read()) is not None:
                        told += part.records["trade_id"].to_pylist()
                        after = part.end.to_text(asked.question)
            replay = reader.open_replay(asked, after=after)
            assert replay.read() is None
    finally:
        for process in helpers:
            process.kill()
            process.join()
        market.close()
    assert sorted(told) == sorted(row["trade_id"] for row in market.appended)
