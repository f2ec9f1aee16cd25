"""Writers are overloaded and killed: what they shed comes in by itself, all of it once."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from k2.feeds import Feed, open_feed
from k2.ingest import CommitLimits, Level, Writer, WriterOptions
from k2.ingest.board import WriterLevel, levels
from k2.ingest.degradation import Thresholds, Trigger
from k2.ingest.overload import OverloadOptions
from k2.log import Producer
from tests.journeys.home import SKEW, Home, ledger, now, open_home, processes
from tests.journeys.test_killed import assert_exact, feed_some, places_in_lake, places_in_log
from tests.journeys.test_writers import end, is_caught_up, wait_for
from tests.log.adapters import adapters, fresh

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MARKET = "simulator:?rate=max&kinds=trades&symbols=8&chunk=500&seed="
FIRST = {"BTCUSDT", "ETHUSDT"}
IDENTITY = ("id_space", "symbol", "trade_id")
TRIGGERS = {
    Level.SOFT: 2_000,
    Level.GRACEFUL: 6_000,
    Level.AGGRESSIVE: 10_000,
    Level.CIRCUIT_BREAK: 14_000,
}
HELD = "held"
"""While this file is there, commits are held up: a writer soon reads no more, and falls behind."""
PATIENCE = 240.0


def _write(folder: Path, url: str) -> None:
    """A writer in a process of its own, until SIGTERM, in a group with others."""
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))

    def step(name: str) -> None:
        while (folder / HELD).exists() and not ended:
            time.sleep(0.02)

    thresholds = Thresholds(
        {level: Trigger(lag, 2.0) for level, lag in TRIGGERS.items()},
        calm_seconds=1.0,
        break_seconds=1.0,
    )
    options = WriterOptions(
        limits=CommitLimits(rows=1_000, interval=timedelta(milliseconds=50)),
        skew=SKEW,
        overload=OverloadOptions(thresholds),
    )
    with open_home(folder, url) as home:
        member = home.log.join("writers")
        try:
            Writer(home.log, home.registry, home.lake, options, step, member).run(
                lambda: bool(ended)
            )
        finally:
            member.leave()


@dataclass
class Overloaded:
    """A home, a market, and the writers that follow it."""

    home: Home
    url: str
    feed: Feed
    producer: Producer
    writers: list[BaseProcess] = field(default_factory=list)
    seen: dict[str, WriterLevel] = field(default_factory=dict)

    def start(self) -> None:
        process = processes.Process(target=_write, args=(self.home.folder, self.url), daemon=True)
        process.start()
        self.writers.append(process)

    def send(self, rows: int) -> None:
        feed_some(self.feed, self.producer, rows)

    def told(self) -> list[WriterLevel]:
        """What the writers that live say of themselves; what any ever said, is kept."""
        alive = {str(writer.pid) for writer in self.writers if writer.is_alive()}
        found = levels(self.home.log, now())
        self.seen |= {each.writer: each for each in found}
        return [each for each in found if each.writer.split("-")[-2] in alive]

    def fall_behind(self, until: Level) -> WriterLevel:
        """Hold the writers up and feed them, until one of them comes to this level."""
        (self.home.folder / HELD).touch()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            # Less than what lies between two levels, each time that they look.
            self.send(500)
            time.sleep(0.25)
            most = max(self.told(), key=lambda each: each.level, default=None)
            if most is not None and most.level >= until:
                return most
        raise AssertionError((until, self.seen))

    def go_on(self) -> None:
        (self.home.folder / HELD).unlink()

    def kill(self, whom: WriterLevel) -> None:
        victim = next(w for w in self.writers if str(w.pid) == whom.writer.split("-")[-2])
        victim.kill()
        victim.join()
        self.writers.remove(victim)

    def open_records(self) -> int:
        return sum(each.records for each in self.home.lake.table("trades").snapshot().shed)

    def has_recovered(self) -> bool:
        told = self.told()
        calm = len(told) == len(self.writers) and all(t.level is Level.NORMAL for t in told)
        return calm and not self.open_records() and is_caught_up(self.home)


@pytest.fixture(params=adapters("open_log"))
def overloaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Overloaded]:
    url = fresh(request, request.param, tmp_path)
    with open_home(tmp_path, url) as home:
        producer = Producer(home.log, home.registry, 4)
        made = Overloaded(home, url, open_feed(f"{MARKET}5", None, now), producer)
        try:
            yield made
            end(made.writers)
        finally:
            for writer in made.writers:
                writer.kill()


def rises(seen: dict[str, WriterLevel]) -> Iterator[tuple[Level, Level]]:
    """Every change of a level upwards that any writer told of."""
    for each in seen.values():
        for change in each.history:
            before, after = Level[change["before"]], Level[change["after"]]
            if after > before:
                yield before, after


def shed_entries(home: Home) -> list[dict[str, Any]]:
    entries = [e for path in ledger(home, "shed") for e in pq.read_table(path).to_pylist()]
    return [entry for entry in entries if entry["event"] == "shed"]


def assert_each_record_once(home: Home) -> None:
    assert places_in_lake(home) == places_in_log(home)
    files = home.lake.table("trades").snapshot().files.select()
    ids: Counter[tuple[str, ...]] = Counter()
    for file in files:
        table = pq.ParquetFile(file.path).read(columns=list(IDENTITY))
        ids.update(zip(*(table[column].to_pylist() for column in IDENTITY), strict=True))
    assert set(ids.values()) == {1}


def assert_audited(home: Home, url: str) -> None:
    """By the command, as an operator does it."""
    command = [sys.executable, "-m", "k2", "--home", str(home.folder), "audit"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "K2_LOG": url}
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_writers_killed_while_they_shed_lose_nothing(overloaded: Overloaded) -> None:
    home, chance = overloaded.home, random.Random(20261130)
    overloaded.send(2_000)
    overloaded.start()
    overloaded.start()
    wait_for(overloaded.has_recovered, "both follow", PATIENCE)
    for level in (Level.GRACEFUL, Level.AGGRESSIVE, Level.CIRCUIT_BREAK):
        victim = overloaded.fall_behind(level)
        overloaded.go_on()
        if level < Level.CIRCUIT_BREAK:
            wait_for(lambda: overloaded.open_records() > 0, f"{level.name}: it sheds", PATIENCE)
        else:
            time.sleep(chance.random() * 3)
        overloaded.kill(victim)
        overloaded.start()
        overloaded.send(1_000)
        assert_exact(home)
        wait_for(overloaded.has_recovered, f"after {level.name}", PATIENCE)
        assert_exact(home)
    end(overloaded.writers)
    assert {after for _, after in rises(overloaded.seen)} == set(TRIGGERS)
    assert all(after - before == 1 for before, after in rises(overloaded.seen))
    entries = shed_entries(home)
    below = [entry for entry in entries if entry["level"] < Level.CIRCUIT_BREAK]
    assert below
    assert all(FIRST.isdisjoint(entry["symbols"].split()) for entry in below)
    assert_each_record_once(home)
    assert_audited(home, overloaded.url)


def test_a_writer_that_was_down_for_long_sheds_nothing(overloaded: Overloaded) -> None:
    """What stood in the log when it came back is no overload, thirty times as much as SOFT."""
    home, made = overloaded.home, 300_000
    past = open_feed("simulator:?rate=max&kinds=trades&symbols=8&chunk=50000&seed=7", None, now)
    feed_some(past, overloaded.producer, made)
    overloaded.start()

    def is_done() -> bool:
        overloaded.send(100)
        return bool(overloaded.told()) and home.lake.table("trades").snapshot().files.rows >= made

    wait_for(is_done, "all of it is in", PATIENCE)
    wait_for(lambda: is_caught_up(home), "the rest too", PATIENCE)
    end(overloaded.writers)
    assert overloaded.seen
    assert not any(each.history for each in overloaded.seen.values())
    assert not shed_entries(home)
    assert_each_record_once(home)
