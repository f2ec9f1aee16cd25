"""Rows made again from the log where records were shed: what waits goes on waiting, what came in
later comes back with the commit that brought it.
"""

import random
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.errors import Refused
from k2.ingest import audit
from k2.ingest import fill as filling
from k2.ingest.degradation import Level
from k2.lake import ShedRange, commit
from k2.log import EXCHANGES_TOPIC, Append
from k2.model import encode, versions
from tests.ingest.test_rebuild import (
    DAYS,
    EXCHANGE,
    START,
    TOPIC,
    again,
    answers,
    content,
    files,
    on_disk,
)
from tests.ingest.test_shed import bring_in, entries_of, line, shedding, sums, work
from tests.journeys.home import Home, ledger, open_home

SCHEMA = versions("trades")[1]
SYMBOLS = ("BTCUSDT", "ETHUSDT", "AAA", "BBB")
"""The first two are of tier 1, the others of tier 3."""


def append(home: Home, first: int, count: int) -> None:
    """Trades of three days in turn; of ten one is rejected and one a duplicate."""
    schema_id = home.registry.register(TOPIC.subject, SCHEMA.avro)
    for partition in range(2):
        rows = []
        for n in range(first, first + count):
            when = START + timedelta(days=n % 3, milliseconds=n)
            row: dict[str, Any] = {
                "symbol": SYMBOLS[n % 4],
                "exchange": EXCHANGE.name,
                "timestamp": when,
                "price": Decimal(n + 1) / 8,
                "quantity": Decimal(-1 if n % 10 == 4 else 3),
                "ingestion_timestamp": when,
                "trade_id": str(n - 24 if n % 10 == 7 else n),
                "side": "BUY",
                "price_forming": True,
                "id_space": "",
                "timestamp_nanos": 0,
            }
            if n % 2 == partition:
                rows.append({f.name: row.get(f.name) for f in SCHEMA.arrow})
        columns = {f.name: [row[f.name] for row in rows] for f in SCHEMA.arrow}
        table = pa.table(columns, schema=SCHEMA.arrow)
        home.log.append([Append(str(TOPIC), partition, schema_id, encode(table, SCHEMA))])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    """An exchange and a topic; what was shed comes in a few records at a time."""
    monkeypatch.setattr(filling, "_RECORDS", 25)
    monkeypatch.setattr(filling, "_OFFSETS", 60)
    monkeypatch.setattr(filling, "_READ_BYTES", 2_000)
    with open_home(tmp_path) as opened:
        opened.log.put(EXCHANGES_TOPIC, EXCHANGE.name, EXCHANGE.to_json())
        opened.log.create(str(TOPIC), 2)
        yield opened


def skip(home: Home, called: str = "one") -> None:
    """All that is in the log is shed, whatever its tier."""
    with closing(line(home)) as of:
        of.skip(shedding(called=called))


def bring_in_some(home: Home, steps: int) -> None:
    with closing(line(home)) as of:
        for _ in range(steps):
            of.step(None, at_once=True)
        of.finish()


def state(home: Home) -> dict[str, object]:
    """All that has to be as it was: rows with their commits, fates, what waits, the ledgers."""
    ledgers = ("rejected", "duplicates", "shed")
    return {
        "rows": content(home),
        "audit": audit(home.log, home.lake),
        "waiting": waiting(home),
        "ledgers": {
            name: sum(pq.read_metadata(path).num_rows for path in ledger(home, name))
            for name in ledgers
        },
    }


def waiting(home: Home) -> tuple[ShedRange, ...]:
    return home.lake.table("trades").snapshot().shed


def commits(home: Home) -> int:
    return home.lake.table("trades").snapshot().sequence


def test_what_waits_goes_on_waiting_and_comes_in_afterwards(home: Home) -> None:
    append(home, 0, 300)
    work(home, shedding())
    before = state(home)
    assert sum(each.records for each in waiting(home)) == 150
    Path(files(home, DAYS[1])[0].path).unlink()

    assert again(home).rows == len(content(home))

    assert state(home) == before
    bring_in(home)
    total = sums(home)
    assert (total.shed, total.committed + total.duplicate + total.rejected) == (0, 300)


def test_what_was_brought_in_comes_back_with_the_commit_that_did(home: Home) -> None:
    append(home, 0, 300)
    work(home, shedding())
    shed_until = commits(home)
    append(home, 300, 100)
    work(home)
    bring_in(home)
    past, before = answers(home.folder, commits(home)), state(home)
    filled = [row for row in content(home) if int(str(row["commit"])) > shed_until + 1]
    assert len({row["commit"] for row in filled}) > 2, "in parts, by commits of their own"
    assert {row["symbol"] for row in filled} == {"AAA", "BBB"}
    for file in files(home):
        Path(file.path).unlink()

    done = again(home)

    assert done.rows == len(content(home))
    assert state(home) == before
    assert answers(home.folder, len(past)) == past
    assert len(set(past)) == len(past)


def test_one_day_of_which_a_part_waits(home: Home) -> None:
    append(home, 0, 400)
    work(home, shedding())
    append(home, 400, 100)
    skip(home)
    bring_in_some(home, 4)
    before = state(home)
    events = [entry["event"] for entry in entries_of(home)]
    assert waiting(home)
    assert "filled" in events
    others = [file.path for day in DAYS[::2] for file in files(home, day)]
    for file in files(home, DAYS[1])[::2]:
        Path(file.path).unlink()

    again(home, DAYS[1])

    assert state(home) == before
    assert [f.path for day in DAYS[::2] for f in files(home, day)] == others
    bring_in(home)
    assert sums(home).shed == 0


def test_what_was_shed_whole_and_then_by_its_tier(home: Home) -> None:
    append(home, 0, 40)
    work(home)
    append(home, 40, 200)
    skip(home)
    seen: list[set[str]] = []
    # Of what was shed whole, tier 1 comes first, and the rest is shed anew.
    for _ in range(12):
        bring_in_some(home, 2)
        ids = {each.id for each in waiting(home)}
        seen.append(ids)
        before = state(home)
        again(home)
        assert state(home) == before
    assert {"one.whole", "one.later"} <= set().union(*seen)
    bring_in(home)
    before = state(home)
    for file in files(home):
        Path(file.path).unlink()
    again(home)
    assert state(home) == before
    assert sums(home).shed == 0


@pytest.mark.parametrize("seed", range(8))
def test_whatever_was_shed_is_made_again_as_it_was(home: Home, seed: int) -> None:
    """A script of a seed: appended, worked off, shed by tier or whole, brought in by and by."""
    chance, first = random.Random(seed), 0
    for number in range(20):
        act = chance.choice(["append", "append", "work", "shed", "skip", "bring in", "bring in"])
        if act == "append" or not number:
            first += (count := chance.randrange(20, 120))
            append(home, first - count, count)
        elif act == "work":
            work(home, None if chance.random() < 0.5 else shedding(Level.SOFT))
        elif act == "shed":
            work(home, shedding(called=f"time {number // 6}"))
        elif act == "skip":
            skip(home, called=f"time {number // 6}")
        else:
            bring_in_some(home, chance.randrange(1, 6))
    before = state(home)
    days = chance.choice([(), (DAYS[0],), (DAYS[1], DAYS[2])])
    for file in files(home, *days):
        if chance.random() < 0.5:
            Path(file.path).unlink()
    again(home, *days)
    assert state(home) == before
    bring_in(home)
    total = sums(home)
    assert (total.shed, total.in_flight) == (0, 0)
    assert total.committed + total.duplicate + total.rejected == first


def test_what_comes_in_meanwhile_stays(home: Home) -> None:
    append(home, 0, 300)
    work(home, shedding())
    bring_in_some(home, 2)

    def step(name: str) -> None:
        if name == "commit":
            bring_in_some(home, 3)

    Path(files(home)[0].path).unlink()
    before = sums_waiting(home)
    done = again(home, step=step)
    assert sums_waiting(home) < before
    assert done.rows is not None
    assert done.rows < len(content(home))
    assert sums(home).shed == sums_waiting(home)
    after = state(home)
    again(home)
    assert state(home) == after


def sums_waiting(home: Home) -> int:
    return sum(each.records for each in waiting(home))


def test_what_an_older_version_brought_in_is_refused_and_stays(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(home, 0, 300)
    work(home, shedding())
    with monkeypatch.context() as older:
        # It kept nowhere which commit filled what.
        older.setattr(commit, "FILLED", "k2.unheard-of")
        bring_in(home)
        append_on(home, 60)
        work(home, shedding(called="one more"))
        bring_in(home)
    alone = (START + timedelta(days=60)).date()
    (gone,) = files(home, alone)
    Path(gone.path).unlink()
    disk = on_disk(home)
    # Neither where the table's rows say so, nor where their file does not say anything.
    for day in (DAYS[0], alone):
        with pytest.raises(Refused, match="older K2") as caught:
            again(home, day)
        assert "venue[" in str(caught.value.place)
        assert on_disk(home) == disk
        assert (gone,) == files(home, alone)
    # Days in which nothing was shed can be made again, and so can what was shed since.
    late = START + timedelta(days=30)
    append_on(home, 30)
    work(home, shedding(called="two"))
    bring_in(home)
    (file,) = files(home, late.date())
    rows = pq.read_table(file.path).drop_columns(["commit_sequence"])
    Path(file.path).unlink()
    assert again(home, late.date()).rows == rows.num_rows == 10
    (made,) = files(home, late.date())
    found = pq.read_table(made.path)
    assert found.drop_columns(["commit_sequence"]) == rows
    assert set(found["commit_sequence"].to_pylist()) == {file.sequence}


def append_on(home: Home, day: int) -> None:
    """Ten trades of one symbol of tier 3, so many days after the first."""
    when = START + timedelta(days=day)
    rows = [
        {
            "symbol": "AAA",
            "exchange": EXCHANGE.name,
            "timestamp": when,
            "price": Decimal(1),
            "quantity": Decimal(1),
            "ingestion_timestamp": when,
            "trade_id": str(1_000 * day + n),
            "side": "BUY",
            "price_forming": True,
            "id_space": "",
            "timestamp_nanos": 0,
        }
        for n in range(10)
    ]
    columns = {f.name: [row.get(f.name) for row in rows] for f in SCHEMA.arrow}
    schema_id = home.registry.register(TOPIC.subject, SCHEMA.avro)
    table = pa.table(columns, schema=SCHEMA.arrow)
    home.log.append([Append(str(TOPIC), 0, schema_id, encode(table, SCHEMA))])
