"""Feed, writer and server as processes, killed at any moment; and what a reader sees meanwhile."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from k2.cli.machine import free_port
from k2.feeds import Feed, open_feed
from k2.ingest import audit
from k2.log import Producer
from k2.query import Reader, Selection, open_reader
from tests.cli.conftest import K2
from tests.journeys.home import now, open_home, start_writer

SYMBOLS = 6
FEED = f"simulator:?symbols={SYMBOLS}&rate=2000&seed=21"
KILLS = 20


@dataclass
class Machine:
    """The three parts on one home, each started again as soon as it was killed."""

    home: Path
    port: int
    feed: str = FEED
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, part: str) -> None:
        words = {
            "feed": ["feed", self.feed],
            "writer": ["ingest"],
            "server": ["serve", "--port", str(self.port)],
            "maintenance": ["maintain", "--follow"],
        }
        with self._said(part).open("ab") as said:
            self.running[part] = subprocess.Popen(
                [sys.executable, "-m", "k2", "--home", str(self.home), *words[part]],
                env={**os.environ, "K2_COMMIT_INTERVAL_SECONDS": "0.2", "K2_LOG_PARTITIONS": "2"},
                stderr=said,
            )

    def _said(self, part: str) -> Path:
        return self.home.with_name(f"{part}.log")

    def check(self) -> None:
        """None of them has ended by itself."""
        for part, process in self.running.items():
            assert process.poll() is None, (part, self._said(part).read_text()[-2_000:])

    def kill(self, part: str) -> None:
        self.check()
        process = self.running.pop(part)
        process.kill()
        process.wait()

    def end(self, part: str) -> int:
        process = self.running.pop(part)
        process.terminate()
        return process.wait(60)

    def ask(self, path: str) -> Any:
        """What the server answers, as soon as there is one that does."""
        deadline = time.monotonic() + 60
        while True:
            try:
                response = httpx.get(f"{self.url}{path}", timeout=30)
            except httpx.TransportError:
                assert time.monotonic() < deadline, "the server does not come back"
                time.sleep(0.02)
                continue
            assert response.status_code == 200, response.text
            return response.json()["data"]


@contextmanager
def machine(home: Path, feed: str = FEED) -> Iterator[Machine]:
    made = Machine(home, free_port("127.0.0.1", 0), feed)
    try:
        for part in ("feed", "writer", "server"):
            made.start(part)
        yield made
    finally:
        for process in made.running.values():
            process.kill()
            process.wait()


def assert_no_hole(ids: list[str]) -> None:
    numbers = [int(number) for number in ids]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))


@pytest.mark.slow
def test_parts_killed_at_random_moments_lose_and_double_nothing(k2: K2, tmp_path: Path) -> None:
    home = tmp_path / "home"
    chance = random.Random(20261124)
    victims = ["feed", "writer", "server"] * (KILLS // 3) + ["feed", "writer"]
    chance.shuffle(victims)
    with machine(home) as parts:
        while len(found := parts.ask("/v1/symbols")) < SYMBOLS:
            pass
        symbols = [row["symbol"] for row in found]
        for victim in victims:
            time.sleep(chance.random() * 0.7)
            parts.kill(victim)
            parts.start(victim)
            # History and tail together have no hole and nothing twice, at any moment.
            asked = chance.choice(symbols)
            newest = parts.ask(f"/v1/trades?symbol={asked}&last=2000")
            assert_no_hole([row["trade_id"] for row in newest])
        assert parts.end("feed") == 0
        assert parts.end("writer") == 0
        assert k2("ingest", "--until-caught-up").code == 0
        for path, words in questions(symbols):
            ended = k2(*words, "--json")
            assert ended.code == 0, ended.talk
            assert parts.ask(path) == json.loads(ended.out)["data"], path
        assert parts.end("server") == 0
    found_wrong = k2("audit", "--json")
    assert json.loads(found_wrong.out)["ok"] is True
    with open_home(home) as opened, open_reader(home) as reader:
        (position,) = opened.log.latest("k2.positions").values()
        trades = reader.records("trades", Selection()).table
        quotes = reader.records("quotes", Selection()).table
        # The position is the number of records that the market has made.
        assert trades.num_rows + quotes.num_rows == int(position)
        for symbol in symbols:
            mine = trades.filter(pc.equal(trades["symbol"], symbol))["trade_id"].to_pylist()
            assert_no_hole(sorted(mine, key=int))


def questions(symbols: list[str]) -> list[tuple[str, list[str]]]:
    """The same at both doors."""
    found = [
        ("/v1/symbols", ["symbols"]),
        ("/v1/snapshots?limit=20", ["snapshots", "--limit", "20"]),
    ]
    for symbol in symbols:
        bars = f"/v1/bars/1s?symbol={symbol}&last=200"
        found.append((bars, ["bars", symbol, "--interval", "1s", "--last", "200"]))
        found.append((f"/v1/trades?symbol={symbol}&last=300", ["trades", symbol, "--last", "300"]))
    return found


CLEAN = "simulator:?rate=max&symbols=5&seed=3&kinds=trades&chunk=2000"


class Appended:
    """A producer that remembers which of its records are new ones that can be true."""

    def __init__(self, feed: Feed, producer: Producer, chance: random.Random) -> None:
        self._feed = feed
        self._producer = producer
        self._chance = chance
        (self._exchange,) = feed.exchanges
        self.good: list[pa.Table] = []

    def append_some(self) -> None:
        """New records, some again, some that cannot be; in one batch or several."""
        (records,) = self._feed.read()
        new = records.table.slice(0, self._chance.randrange(1, 2_000))
        new = pa.concat_tables([new, records.table.slice(new.num_rows)])
        parts = [new]
        if self._chance.random() < 0.6:
            old = self._chance.choice([*self.good, new])
            first = self._chance.randrange(old.num_rows)
            parts.append(old.slice(first, self._chance.randrange(1, 300)))
        if self._chance.random() < 0.6:
            parts.append(impossible(new.slice(0, self._chance.randrange(1, 50))))
        if self._chance.random() < 0.5:
            parts = [pa.concat_tables(parts).unify_dictionaries()]
        self.good.append(new)
        for part in parts:
            self._producer.send(self._exchange, "trades", part)

    @property
    def table(self) -> pa.Table:
        return pa.concat_tables(self.good)


def impossible(table: pa.Table) -> pa.Table:
    """The same trades at a price below zero, which are no duplicates but rejected."""
    at = table.schema.get_field_index("price")
    price = pc.negate(table["price"]).cast(table.schema.field("price").type)
    return table.set_column(at, table.schema.field("price"), price)


def canonical(table: pa.Table) -> pa.Table:
    """Plain text columns, in an order of their own."""
    plain = [
        f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema
    ]
    bare = pa.schema([pa.field(f.name, f.type) for f in plain])
    return table.cast(bare).sort_by([("symbol", "ascending"), ("trade_id", "ascending")])


def assert_sees(reader: Reader, appended: Appended) -> None:
    """The reader's rows, counts and bars are those of what was appended."""
    wanted = canonical(appended.table)
    got = canonical(reader.records("trades", Selection()).table.select(wanted.schema.names))
    assert got.num_rows == wanted.num_rows
    assert got.equals(wanted)
    bars = reader.bars(Selection(), "1m", all_trades=True).table
    assert pc.sum(bars["trade_count"]).as_py() == wanted.num_rows
    counted = reader.symbols().table
    assert pc.sum(counted["trades"]).as_py() == wanted.num_rows


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_a_reader_sees_what_was_appended_at_any_moment(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with open_home(tmp_path) as home, open_reader(tmp_path, follow=True) as reader:
        feed = open_feed(f"{CLEAN}&count=200000", None, now)
        appended = Appended(feed, Producer(home.log, home.registry, 2), chance)
        writer = start_writer(tmp_path, None, until_caught_up=False)
        seen: set[int] = set()
        survives = 2
        for number in range(95):
            if number >= 40 and len(seen) > 5:
                break
            appended.append_some()
            chance.choice(MEANWHILE)(chance)
            assert_sees(reader, appended)
            seen.add(home.lake.table("trades").snapshot().sequence)
            if len(seen) > survives and chance.random() < 0.3:
                # The next one has the partitions once this one has been silent for a while.
                survives = len(seen) + 1
                assert writer.is_alive()
                writer.kill()
                writer.join()
                writer = start_writer(tmp_path, None, until_caught_up=False)
        assert writer.is_alive()
        writer.kill()
        writer.join()
        feed.close()
        assert len(seen) > 5, "commits were to happen meanwhile"
        home.catch_up()
        assert_sees(reader, appended)
        assert audit(home.log, home.lake).ok


MEANWHILE: list[Callable[[random.Random], None]] = [
    lambda chance: None,
    lambda chance: time.sleep(chance.random() * 0.1),
]
