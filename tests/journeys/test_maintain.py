"""Maintenance killed at random moments beside writer and reader: nothing lost, nothing amiss."""

import os
import random
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

from k2.feeds import open_feed
from k2.ingest import Writer, WriterOptions
from k2.lake import Commit, maintain, open_lake
from k2.log import Producer
from k2.query import Selection, open_reader
from tests.journeys.home import Home, now, open_home, start_maintenance, start_writer
from tests.journeys.test_killed import (
    FAULTY,
    assert_exact,
    feed_some,
    places_in_lake,
    places_in_log,
)

KILLS = int(os.environ.get("K2_TEST_KILLS", "20"))


class Asking(threading.Thread):
    """Asks again and again for everything, and as of some commit; what went wrong is kept."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self._home = home
        self.stopped = threading.Event()
        self.wrong: list[str] = []
        self.answers = 0

    def run(self) -> None:
        try:
            self._ask()
        except BaseException as error:
            self.wrong.append(repr(error))
            raise

    def _ask(self) -> None:
        rows, past = 0, dict[str, int]()
        with open_reader(self._home.folder) as reader:
            while not self.stopped.is_set():
                found = reader.records("trades", Selection(), limit=100_000, fields=("trade_id",))
                answer = reader.sql("select count(*) as n from trades").table["n"][0].as_py()
                if answer < rows:
                    self.wrong.append(f"{answer} trades after {rows}")
                rows = answer
                if found.table.num_rows > answer and found.next is None:
                    self.wrong.append(f"{found.table.num_rows} trades and then {answer}")
                commits = reader.snapshots("trades", limit=1).table
                if commits.num_rows:
                    past.setdefault(str(commits["snapshot_id"][0].as_py()), -1)
                for then in list(past)[-3:] + list(past)[:1]:
                    seen = reader.sql("select count(*) as n from trades", as_of=then)
                    count = seen.table["n"][0].as_py()
                    if past[then] not in (-1, count):
                        self.wrong.append(f"as of {then}: {count} after {past[then]}")
                    past[then] = count
                self.answers += 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_random_moments_no_row_and_no_answer_is_wrong(tmp_path: Path) -> None:
    chance = random.Random(20261130)
    merged = removed = 0
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 2)
        feed = open_feed(FAULTY, None, now)
        feed_some(feed, producer, 10_000)
        writer = start_writer(tmp_path, None, until_caught_up=False)
        asking = Asking(home)
        asking.start()
        try:
            for number in range(KILLS):
                maintenance = start_maintenance(tmp_path)
                end = time.monotonic() + 1.0 + chance.random() * 4.0
                while time.monotonic() < end:
                    feed_some(feed, producer, chance.randrange(200, 2_000))
                    # A commit without pause after the other would win every race.
                    time.sleep(0.4)
                assert maintenance.is_alive(), number
                maintenance.kill()
                maintenance.join()
                assert asking.wrong == [], number
                if number % 5 == 4:
                    assert_exact(home)
                commits = home.lake.commits_of("trades")
                merged = commits["operation"].to_pylist().count("replace")
        finally:
            asking.stopped.set()
            asking.join()
            assert writer.pid is not None
            os.kill(writer.pid, signal.SIGTERM)
            writer.join(60)
        assert writer.exitcode == 0
        assert asking.wrong == []
        assert asking.answers > KILLS
        home.catch_up()
        # What the killed ones left behind goes, and nothing else does.
        for name in home.lake.tables():
            maintain(home.lake, name, after=timedelta(0))
            removed += maintain(home.lake, name, after=timedelta(0)).removed.files
        assert_exact(home)
        assert places_in_lake(home) == places_in_log(home)
        assert merged >= KILLS // 4, merged
        on_disk = set((tmp_path / "lake/tables/trades/data").rglob("*.parquet"))
        assert len(on_disk) < 200 + 2 * len(home.lake.table("trades").snapshot().files)


def test_a_writer_that_froze_while_its_files_were_removed_decides_anew(tmp_path: Path) -> None:
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 1)
        feed = open_feed(f"{FAULTY}&kinds=trades", None, now)
        feed_some(feed, producer, 3_000)
        gone: list[str] = []

        def freeze(step: str) -> None:
            if step != "commit" or gone:
                return
            # As long as another takes to note its files, and to remove them.
            maintain(home.lake, "trades", after=timedelta(0))
            gone.append(step)

        writer = Writer(home.log, home.registry, home.lake, WriterOptions(), on_step=freeze)
        writer.run(lambda: False, until_caught_up=True)
        assert gone
        assert_exact(home)
        assert places_in_lake(home) == places_in_log(home)


def test_a_writer_that_slept_while_files_were_compacted_and_removed_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_home(tmp_path) as home:
        producer = Producer(home.log, home.registry, 1)
        feed = open_feed("simulator:?rate=max&kinds=trades&symbols=8&chunk=500&seed=3", None, now)
        sleeper = home.writer()
        for _ in range(3):
            (found,) = feed.read()
            producer.send(feed.exchanges[0], "trades", found.table)
            while sleeper.step(until_caught_up=True) or not sleeper.is_done():
                pass
        old = [file.path for file in home.lake.table("trades").snapshot().files.select()]
        other = open_lake(tmp_path / "lake", keep_snapshots=1)
        assert maintain(other, "trades").commits == 1
        for _ in range(3):
            other.absorb("trades")
            offsets = other.table("trades").snapshot().offsets
            other.table("trades").commit(Commit((), offsets, offsets))
        for _ in range(2):
            maintain(other, "trades", after=timedelta(0))
        other.close()
        assert not any(Path(path).exists() for path in old)
        # Records that it has to look for in these very files.
        producer.send(feed.exchanges[0], "trades", found.table)
        while sleeper.step(until_caught_up=True) or not sleeper.is_done():
            pass
        sleeper.finish()
        sleeper.close()
        assert "reading again" in caplog.text
        assert_exact(home)
        assert sum(file.rows for file in home.lake.ledger_files("duplicates")) == 500
