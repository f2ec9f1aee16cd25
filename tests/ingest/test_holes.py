"""Holes of all streams together: memory holds so many, the ledger has every number once."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from k2.ingest import audit, with_state
from k2.ingest.holes import count_holes, excess, in_ledger, without
from k2.ingest.sequence import Hole, Mark, State, Stream
from k2.ingest.tracking import Sequences
from k2.lake import definition
from k2.lake.ledgers import to_rows
from k2.log import Producer
from k2.model import Exchange, latest
from tests.ingest.numbered import BEGAN, writer_options
from tests.journeys.home import Home, now, open_home

EXCHANGE = Exchange("simulated", "crypto", "UTC", numbered=("trades",))
GRACE = timedelta(seconds=10)
MOST = 30
Numbers = Mapping[str, list[int]]
"""By symbol."""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    with open_home(tmp_path) as opened:
        yield opened


def hole(first: int, last: int, seen: int = 0, *, told: bool = False) -> Hole:
    before = Mark(first - 1, 0, 0, 0, first - 1)
    return Hole(before, Mark(last + 1, 0, seen, 0, last + 1), told=told)


def state(*holes: Hole) -> State:
    return State(0, Mark(10**6, 0, 0, 0, 0), holes)


# ------------------------------------------------------------------------- which go


def test_nothing_goes_while_memory_has_room() -> None:
    states = {("e", "A", ""): state(hole(1, 1), hole(3, 3))}
    assert excess(states, 2, lambda h: h.told, lambda s, h: True) == []


def test_told_ones_go_first_then_the_oldest_and_a_tenth_more_than_need_be() -> None:
    a, b = ("e", "A", ""), ("e", "B", "")
    states = {
        a: state(*(hole(2 * n, 2 * n, seen=100 - n, told=n % 2 == 0) for n in range(1, 12))),
        b: state(*(hole(2 * n, 2 * n, seen=200 - n) for n in range(1, 15))),
    }
    gone = excess(states, 20, lambda h: h.told, lambda s, h: s == b)
    assert [(s, h.told) for s, h in gone] == [(a, True)] * 5 + [(b, False)] * 2
    seen = [h.after.ingested for _, h in gone]
    assert seen == [*sorted(seen[:5]), 186, 187]
    left = states | without(states, gone)
    assert count_holes(left) == 18
    assert [h.first for h in left[b].holes] == [2 * n for n in range(1, 13)]


def test_what_nobody_can_be_told_of_stays() -> None:
    states = {("e", "A", ""): state(*(hole(2 * n, 2 * n) for n in range(1, 30)))}
    assert excess(states, 5, lambda h: h.told, lambda s, h: False) == []


# ------------------------------------------------------------------------- what is told


@pytest.mark.parametrize("seed", range(6))
def test_a_hole_is_told_if_the_ledger_names_its_every_number(home: Home, seed: int) -> None:
    chance = random.Random(seed)
    streams: list[Stream] = [("a", "X", ""), ("a", "X", "s"), ("a", "Y", ""), ("b", "X", "")]
    told: dict[Stream, set[int]] = defaultdict(set)
    paths = []
    for _ in range(3):
        rows: list[dict[str, object]] = []
        for _ in range(chance.randrange(1, 40)):
            stream = chance.choice([*streams, ("a", "Z", "")])
            kind = chance.choice(["trades", "trades", "trades", "quotes"])
            first = chance.randrange(1, 300)
            last = first + chance.randrange(12)
            if kind == "trades":
                told[stream] |= set(range(first, last + 1))
            rows.append(entry(stream, kind, first, last))
        paths.append(home.lake.table("gaps").write(to_rows("gaps", rows), None).path)
    holes: list[tuple[Stream, Hole]] = []
    for stream in streams:
        at = 1
        while at < 300:
            last = at + chance.randrange(8)
            holes.append((stream, hole(at, last)))
            at = last + chance.randrange(2, 20)
    chance.shuffle(holes)
    expected = [set(range(h.first, h.last + 1)) <= told[stream] for stream, h in holes]
    assert in_ledger(paths, "trades", holes).tolist() == expected
    assert 0 < sum(expected) < len(holes)
    assert not in_ledger([], "trades", holes).any()
    assert in_ledger(paths, "trades", []).tolist() == []


def entry(stream: Stream, kind: str, first: int, last: int) -> dict[str, object]:
    exchange, symbol, id_space = stream
    return {
        "exchange": exchange,
        "symbol": symbol,
        "id_space": id_space or None,
        "kind": kind,
        "first_missing": first,
        "last_missing": last,
        "cause": "unknown",
        "ingestion_timestamp": BEGAN,
        "log_topic": "t",
        "log_id": "i",
        "log_partition": 0,
        "log_offset": 0,
    }


# ------------------------------------------------------------------------- the writer


def send(
    home: Home, numbers: Numbers, *, at: float, most: int = MOST, is_whole: bool = False
) -> None:
    """Trades of these numbers, first seen so many seconds after the beginning: one commit."""
    schema = latest("trades").arrow
    plain = pa.schema(
        [f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in schema]
    )
    when = BEGAN + timedelta(seconds=at)
    rows = [
        {
            "symbol": symbol,
            "exchange": EXCHANGE.name,
            "price": Decimal(1),
            "quantity": Decimal(1),
            "id_space": "",
            "side": "BUY",
            "asset_class": "crypto",
            "price_forming": True,
            "timestamp_nanos": 0,
            "ingestion_timestamp": when,
            "trade_id": str(number),
            "timestamp": when,
        }
        for symbol, mine in numbers.items()
        for number in mine
    ]
    if rows:
        table = pa.Table.from_pylist(rows, schema=plain).cast(schema)
        Producer(home.log, home.registry, 3).send(EXCHANGE, "trades", table)
    options = replace(writer_options(GRACE), most_holes=most)
    home.writer(options).run(lambda: False, until_caught_up=True, is_whole=is_whole)


def sequences(home: Home) -> Sequences:
    table = home.lake.table("trades")
    return Sequences(home.lake, table, table.snapshot(), GRACE, MOST)


def ledger(home: Home) -> pa.Table:
    files = home.lake.ledger_files("gaps")
    parts = [pq.ParquetFile(file.path).read() for file in files]
    return pa.concat_tables(parts or [definition("gaps").arrow.empty_table()])


def told(home: Home) -> Counter[tuple[str, int]]:
    """How often the ledger names each number."""
    rows = ledger(home).to_pylist()
    return Counter(
        (row["symbol"], number)
        for row in rows
        for number in range(row["first_missing"], row["last_missing"] + 1)
    )


def without_kept(home: Home) -> None:
    """What was kept beside the table is gone: a start reads all rows."""
    for path in (home.lake.table("trades").metadata_folder.parent / "sequences").iterdir():
        path.unlink()


@pytest.mark.parametrize("seed", range(4))
def test_every_missing_number_is_told_once_however_few_are_held(home: Home, seed: int) -> None:
    """Each commit opens up to twice as many holes as may be held; some numbers come late, before
    and after they were let go of; now and then a start finds nothing kept.
    """
    chance = random.Random(seed)
    symbols = [f"S{n}" for n in range(7)]
    top = dict.fromkeys(symbols, 1)
    sent: dict[str, set[int]] = {symbol: {1} for symbol in symbols}
    send(home, {symbol: [1] for symbol in symbols}, at=0)
    for turn in range(1, 16):
        numbers: dict[str, list[int]] = defaultdict(list)
        for symbol in chance.sample(symbols, 5):
            for _ in range(chance.randrange(1, 9)):
                top[symbol] += chance.choice([1, 2, 2, 3, 6])
                numbers[symbol].append(top[symbol])
            missing = sorted(set(range(1, top[symbol])) - sent[symbol] - {*numbers[symbol]})
            numbers[symbol] += chance.sample(missing, min(len(missing), chance.randrange(3)))
            sent[symbol] |= {*numbers[symbol]}
        if turn % 5 == 0:
            without_kept(home)
        send(home, numbers, at=turn * chance.choice([1, 4]))
        assert count_holes(sequences(home).states) <= MOST
        assert max(told(home).values(), default=1) == 1
    send(home, {}, at=100, is_whole=True)
    never = {
        (symbol, number)
        for symbol in symbols
        for number in set(range(1, top[symbol])) - sent[symbol]
    }
    assert len(never) > 2 * MOST
    found = told(home)
    assert set(found.values()) == {1}
    assert never <= found.keys(), "each number that never came"
    assert audit(home.log, home.lake).ok
    rows = with_state(home.lake, ledger(home)).to_pylist()
    for row in rows:
        span = {(row["symbol"], n) for n in range(row["first_missing"], row["last_missing"] + 1)}
        assert row["missing"] == len(span & never), "and what came late is filled"


def test_an_ordinary_feed_is_told_what_it_always_was(home: Home) -> None:
    """Below the bound, nothing is told before its time, and what is late never is."""
    send(home, {"A": [1, 3], "B": [1, 4]}, at=0)
    send(home, {"A": [5]}, at=9)
    assert not home.lake.ledger_files("gaps")
    send(home, {"A": [2, 4]}, at=9.5)
    send(home, {"A": [6], "B": [5]}, at=10)
    assert set(told(home)) == {("B", 2), ("B", 3)}
    assert count_holes(sequences(home).states) == 1


def test_a_start_that_reads_all_rows_holds_little_more(home: Home) -> None:
    """Each of its holes was told of: those that the ledger has go as they are met."""
    for turn in range(12):
        numbers = range(1 + 40 * turn, 41 + 40 * turn, 2)
        send(home, {"A": [*numbers], "B": [*numbers]}, at=20 * turn)
    assert sum(told(home).values()) > 8 * MOST
    without_kept(home)
    most = 0

    class Watched(Sequences):
        def _relieve(self, states: dict[Stream, State]) -> None:
            nonlocal most
            most = max(most, count_holes(states))
            super()._relieve(states)

    table = home.lake.table("trades")
    found = Watched(home.lake, table, table.snapshot(), GRACE, MOST)
    assert count_holes(found.states) <= 2 * MOST
    assert 2 * MOST < most <= 2 * MOST + 40, "what is held, and what one commit opens"
    send(home, {"A": [1000]}, at=1000, is_whole=True)
    assert set(told(home).values()) == {1}


def test_what_another_writer_told_at_once_is_not_told_again(home: Home) -> None:
    """One looks at the ledger before it has come to the commit that opened and told a hole."""
    table = home.lake.table("trades")

    send(home, {"A": [1, 3]}, at=0, most=1)
    other = Sequences(home.lake, table, table.snapshot(), GRACE, MOST)
    assert count_holes(other.states) == 1
    send(home, {"A": [5, 7]}, at=1, most=1)
    assert set(told(home)) == {("A", 2), ("A", 4)}, "before their time; 6 is held"
    assert other.overdue(now(), None) is None, "the ledger has 2"
    after = table.snapshot()
    other.advance(after, [file.path for file in after.files.since(1)], None)
    found = other.overdue(now(), None)
    assert found is not None
    assert found.gaps["first_missing"].to_pylist() == [6]
