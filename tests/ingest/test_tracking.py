"""Numbers that are missing from a table: the gap ledger says what the market left out, and a writer
that starts again knows what the one before it knew.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.feeds import EndOfFeed, open_feed
from k2.feeds.faults import injected
from k2.feeds.simulator import parse
from k2.ingest import audit, with_state
from k2.ingest.sequence import State, Stream
from k2.ingest.tracking import Sequences
from k2.log import Producer
from k2.model import Exchange
from tests.ingest.numbered import BEGAN, send, trades, writer_options
from tests.journeys.home import Home, now, open_home

COUNT = 60_000
MARKET = (
    f"?symbols=6&rate=max&count={COUNT}&seed=7&chunk=4000"
    "&gaps=0.002&duplicates=0.01&late=0.01&malformed=0.002"
)
Numbers = set[tuple[str, str, int]]
"""Kind, symbol and number."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path) as opened:
        yield opened


def run_market(home: Home, grace: timedelta) -> None:
    """The whole market through the log, a commit for every few thousand records."""
    feed = open_feed(f"simulator:{MARKET}", None, now)
    producer = Producer(home.log, home.registry, 3)
    with suppress(EndOfFeed):
        while True:
            for records in feed.read():
                producer.send(feed.exchanges[0], records.kind, records.table)
            home.writer(writer_options(grace)).run(lambda: False, until_caught_up=True)


def held(home: Home) -> Numbers:
    found: Numbers = set()
    for kind, column in (("trades", "trade_id"), ("quotes", "source_sequence")):
        for file in home.lake.table(kind).snapshot().files.select():
            rows = pq.ParquetFile(file.path).read(columns=["symbol", column])
            numbers = map(int, rows[column].to_pylist())
            found |= set(zip([kind] * len(rows), rows["symbol"].to_pylist(), numbers, strict=True))
    return found


def told(home: Home) -> list[dict[str, object]]:
    files = home.lake.ledger_files("gaps")
    return [row for file in files for row in pq.ParquetFile(file.path).read().to_pylist()]


def in_ledger(home: Home) -> Numbers:
    return {
        (str(row["kind"]), str(row["symbol"]), number)
        for row in told(home)
        for number in range(int(str(row["first_missing"])), int(str(row["last_missing"])) + 1)
    }


def script(held_: Numbers) -> Numbers:
    """What the market left out or spoilt, between the first and the last number of each stream."""
    faults = injected(parse(MARKET).market, 0, COUNT)
    missing = {
        (row["kind"], row["symbol"], row["sequence"])
        for row in faults.to_pylist()
        if row["fault"] in ("gap", "malformed")
    }
    least: dict[tuple[str, str], int] = {}
    most: dict[tuple[str, str], int] = {}
    for kind, symbol, number in held_:
        of = (kind, symbol)
        least[of], most[of] = min(least.get(of, number), number), max(most.get(of, 0), number)
    return {
        (kind, symbol, number)
        for kind, symbol, number in missing
        if least[kind, symbol] < number < most[kind, symbol]
    }


def states(home: Home, kind: str) -> dict[Stream, State]:
    table = home.lake.table(kind)
    return dict(Sequences(home.lake, table, table.snapshot(), timedelta(0)).states)


@pytest.mark.slow
def test_the_ledger_is_what_the_market_left_out(home: Home) -> None:
    run_market(home, timedelta(0))
    numbers = held(home)
    expected = script(numbers)
    assert len(expected) > 100
    assert in_ledger(home) - numbers == expected
    causes = {row["cause"] for row in told(home)}
    assert causes <= {"unknown", "rejected"}
    assert "rejected" in causes
    for kind in ("trades", "quotes"):
        open_now = {
            (kind, symbol, number)
            for (_, symbol, _), state in states(home, kind).items()
            for hole in state.holes
            for number in range(hole.first, hole.last + 1)
        }
        assert open_now == {each for each in expected if each[0] == kind}


@pytest.mark.slow
def test_a_restart_finds_the_same(home: Home) -> None:
    run_market(home, timedelta(0))
    for kind in ("trades", "quotes"):
        kept = home.lake.table(kind).metadata_folder.parent / "sequences"
        assert len(list(kept.iterdir())) > 1
        from_kept = states(home, kind)
        newest = max(kept.iterdir())
        newest.unlink()
        # From rows nobody knows what was told, nor what was rejected meanwhile: ledgers do.
        assert plain(states(home, kind)) == plain(from_kept)
        for file in kept.iterdir():
            file.write_text("{")
        assert plain(states(home, kind)) == plain(from_kept)


def plain(found: dict[Stream, State]) -> dict[Stream, State]:
    return {
        stream: state._replace(holes=tuple(hole[:2] for hole in state.holes))  # type: ignore[misc]
        for stream, state in found.items()
    }


def open_holes(home: Home) -> list[tuple[int, int]]:
    (state,) = states(home, "trades").values()
    return [(hole.first, hole.last) for hole in state.holes]


def test_what_is_only_late_is_never_told(home: Home) -> None:
    trades(home, [1, 2, 5])
    assert open_holes(home) == [(3, 4)]
    trades(home, [3, 4], at=9)
    trades(home, [6], at=3600)
    assert (told(home), open_holes(home)) == ([], [])


def test_a_gap_is_told_once_when_its_time_has_come(home: Home) -> None:
    trades(home, [1, 2, 5])
    trades(home, [6], at=9)
    assert told(home) == []
    trades(home, [7], at=10)
    (entry,) = told(home)
    assert (entry["symbol"], entry["first_missing"], entry["last_missing"]) == ("BTC", 3, 4)
    assert (entry["cause"], entry["source"], entry["id_space"]) == ("unknown", None, None)
    assert entry["from_timestamp"] == BEGAN + timedelta(microseconds=2)
    assert entry["to_timestamp"] == BEGAN + timedelta(microseconds=5)
    assert entry["ingestion_timestamp"] == BEGAN + timedelta(seconds=10)
    trades(home, [8, 12], at=60)
    trades(home, [13], at=90)
    assert [entry["first_missing"] for entry in told(home)] == [3, 9]
    trades(home, [3, 4, 9, 10, 11], at=95)
    trades(home, [14], at=200)
    assert len(told(home)) == 2
    assert open_holes(home) == []


def follow(home: Home) -> None:
    """A writer that runs on until it has told of a gap, or for long enough that it will not."""
    end = time.monotonic() + 1.5
    grace = timedelta(seconds=0.2)
    home.writer(writer_options(grace)).run(lambda: time.monotonic() > end)


def test_a_gap_is_told_of_a_stream_that_went_quiet(home: Home) -> None:
    trades(home, [1, 2, 5])
    before = home.lake.table("trades").snapshot()
    for _ in range(2):
        follow(home)
        (entry,) = told(home)
        assert (entry["first_missing"], entry["last_missing"]) == (3, 4)
        assert (entry["log_partition"], entry["log_offset"]) == (0, 2)
    after = home.lake.table("trades").snapshot()
    assert (after.sequence, after.offsets) == (before.sequence + 1, before.offsets)
    assert len(after.files) == len(before.files)
    assert home.lake.commits_of("trades")["rows"].to_pylist() == [3, 0]
    trades(home, [3, 4], at=60)
    follow(home)
    assert (len(told(home)), open_holes(home)) == (1, [])
    assert audit(home.log, home.lake).ok


def test_a_writer_tells_of_its_own_partitions(home: Home) -> None:
    trades(home, [1, 2, 5])
    table = home.lake.table("trades")
    topic = "market.crypto.trades.simulated"
    for owned, count in (({}, 0), ({topic: {1}}, 0), ({topic: {0, 1}}, 1), (None, 1)):
        sequences = Sequences(home.lake, table, table.snapshot(), timedelta(seconds=10))
        found = sequences.overdue(now(), owned)
        assert (found.small if found else 0) == count


def became(home: Home) -> list[tuple[object, ...]]:
    """Of each entry of the ledger: what is missing, in which state, and where it can be had."""
    tables = [pq.ParquetFile(file.path).read() for file in home.lake.ledger_files("gaps")]
    found = with_state(home.lake, pa.concat_tables(tables)).to_pylist()
    return [(row["missing"], row["state"], row["refill_from"]) for row in found]


def test_what_became_of_a_gap(home: Home) -> None:
    trades(home, [1, 2, 5])
    trades(home, [6], at=60)
    gap: dict[str, object]
    gap = {"exchange": "simulated", "symbol": "BTC", "kind": "quotes", "source": "feed"}
    send(home, "gaps", [{**gap, "cause": "disconnect", "ingestion_timestamp": BEGAN}])
    venue = {**gap, "exchange": "binance", "kind": "trades", "source": None}
    venue |= {"first_missing": 7, "last_missing": 9, "cause": "unknown"}
    send(home, "gaps", [{**venue, "ingestion_timestamp": BEGAN}])
    nobody = (None, "given up", None)
    assert became(home) == [(2, "given up", None), nobody, (3, "open", "venue")]
    trades(home, [4], at=61)
    assert became(home)[0] == (1, "given up", None)
    trades(home, [3], at=62)
    assert became(home)[0] == (0, "filled", None)


def test_what_a_feed_has_told_is_not_told_again(home: Home) -> None:
    trades(home, [1, 4, 6])
    gap: dict[str, object]
    gap = {"exchange": "simulated", "symbol": "BTC", "kind": "trades", "source": "feed"}
    gap |= {"first_missing": 2, "last_missing": 3, "cause": "disconnect"}
    send(home, "gaps", [{**gap, "ingestion_timestamp": BEGAN}])
    trades(home, [7], at=20)
    trades(home, [8], at=60)
    found = [(row["first_missing"], row["cause"]) for row in told(home)]
    assert sorted(found, key=str) == [(2, "disconnect"), (5, "unknown")]


def test_an_exchange_that_does_not_count_has_no_gaps(home: Home) -> None:
    trades(home, [1, 2, 5])
    exchange = Exchange("simulated", "crypto", "UTC", numbered=("quotes",))
    Producer(home.log, home.registry, 1).declare(exchange)
    # What is numbered adds up: no producer takes back what another declared.
    trades(home, [9], at=30)
    assert [row["first_missing"] for row in told(home)] == [3]
    assert home.lake.table("trades").snapshot().exchanges["simulated"].numbered == (
        "quotes",
        "trades",
    )
