"""An upgrade on real servers while records flow: in the order that is right, and in a wrong one."""

import json
import os
import subprocess
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer as Client

from k2.cli.machine import free_port
from k2.lake import open_lake
from k2.log import open_log, open_registry
from k2.query import Selection
from tests.cli.conftest import K2
from tests.journeys.test_upgrade import TOPIC, Copy, of_first_version, opened, rows_committed
from tests.journeys.test_writers import wait_for
from tests.log.adapters import fresh
from tests.servers.kafka import Kafka

TAKE_OVER = 20.0
"""Seconds. A member that is ended gives its partitions back at once; machines may be busy."""


class Committed(threading.Thread):
    """Looks at the tables ten times a second: how many rows, and for how long no more came."""

    def __init__(self, home: Path) -> None:
        super().__init__(name="committed")
        self._home = home
        self._ended = threading.Event()
        self.rows = 0
        self.longest_pause = 0.0

    def run(self) -> None:
        since = time.monotonic()
        while not self._ended.wait(0.1):
            rows = rows_committed(self._home)
            now = time.monotonic()
            if self.rows:
                self.longest_pause = max(self.longest_pause, now - since)
            if rows > self.rows:
                self.rows, since = rows, now

    def grows(self) -> None:
        """Wait until more rows come."""
        before = self.rows
        wait_for(lambda: self.rows > before, "more rows", 90)

    def __enter__(self) -> "Committed":
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self.join()


class Running:
    """Processes of one K2 or another that run side by side."""

    def __init__(self) -> None:
        self._all: list[subprocess.Popen[str]] = []

    def add(self, process: "subprocess.Popen[str]") -> "subprocess.Popen[str]":
        self._all.append(process)
        return process

    @staticmethod
    def end(process: "subprocess.Popen[str]") -> None:
        """As an operator does it."""
        process.terminate()
        _, talk = process.communicate(timeout=90)
        assert process.returncode == 0, talk

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._all:
            process.kill()
            process.communicate()


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("K2_LOG", fresh(request, "kafka", tmp_path))
    monkeypatch.setenv("K2_REGISTRY", fresh(request, "confluent", tmp_path))
    monkeypatch.setenv("K2_LOG_PARTITIONS", "4")
    monkeypatch.setenv("K2_COMMIT_INTERVAL_SECONDS", "0.2")
    return tmp_path / "home"


@pytest.fixture
def old(tmp_path: Path, home: Path) -> Copy:
    return of_first_version(tmp_path / "old", home)


@pytest.fixture
def new(tmp_path: Path, home: Path) -> Copy:
    """This K2, in processes of its own."""
    return Copy(tmp_path / "new", home)


def market(seed: int) -> str:
    return f"simulator:?rate=300&symbols=6&seed={seed}"


@pytest.mark.slow
@pytest.mark.servers
def test_tables_servers_writers_producers_one_after_the_other(
    k2: K2,
    home: Path,
    old: Copy,
    new: Copy,
    kafka: Kafka,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    port = free_port("127.0.0.1", 0)
    with Running() as running, Committed(home) as committed:
        feed = running.add(old.start("feed", market(1)))
        writers = [running.add(old.start("ingest")) for _ in range(2)]
        server = running.add(old.start("serve", "--port", str(port)))
        wait_for(lambda: committed.rows > 500 and answers(port), "the old K2", 90)
        committed.longest_pause = 0.0

        with closing(open_lake(home / "lake")):
            pass  # to open them is to upgrade them
        running.end(server)
        running.add(new.start("serve", "--port", str(port)))
        for writer in writers:
            running.end(writer)
            running.add(new.start("ingest"))
        wait_for(lambda: answers(port), "the new server", 90)
        committed.grows()
        second = running.add(new.start("feed", market(2)))
        unknown = append_of_unknown_schema(kafka)
        committed.grows()
        committed.grows()
        running.end(feed)
        third = running.add(new.start("feed", market(1)))
        for _ in range(3):  # what the old feed had sent may be some of it at first
            committed.grows()
        for each in (second, third):
            running.end(each)
        wait_for(lambda: lag(k2) == 0, "all of it", 90)
        pause = committed.longest_pause
        assert answers(port)
    with capsysbinary.disabled():
        print(f"\nlongest pause between commits: {pause:.1f} s")  # noqa: T201
    assert pause < TAKE_OVER
    assert_all_there(k2, home, unknown)


@pytest.mark.slow
@pytest.mark.servers
def test_producers_before_writers(k2: K2, home: Path, old: Copy, new: Copy) -> None:
    """Old writers leave what they cannot read whole to their successors."""
    with Running() as running, Committed(home) as committed:
        feeds = [running.add(old.start("feed", market(1)))]
        writers = [running.add(old.start("ingest")) for _ in range(2)]
        wait_for(lambda: committed.rows > 500, "the old K2", 90)
        feeds.append(running.add(new.start("feed", market(2))))
        wait_for(lambda: committed.longest_pause > 3, "old writers that wait", 90)
        assert [writer.poll() for writer in writers] == [None, None]
        running.add(new.start("ingest"))
        running.end(writers.pop())
        committed.grows()
        running.end(writers.pop())
        committed.grows()
        for feed in feeds:
            running.end(feed)
        wait_for(lambda: lag(k2) == 0, "all of it", 90)
    assert_all_there(k2, home, None)


def answers(port: int) -> bool:
    """Whether the server has trades to show."""
    url = f"http://127.0.0.1:{port}/v1/trades?last=1"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return len(json.load(answer)["data"]) == 1
    except OSError:
        return False


def lag(k2: K2) -> int:
    """Messages that have no fate yet."""
    audit = json.loads(k2("audit", "--json").out)
    assert audit["ok"], audit
    return sum(part["in_flight"] for part in audit["partitions"])


def append_of_unknown_schema(kafka: Kafka) -> tuple[int, bytes]:
    """Have a stranger write a message whose schema no registry knows; its id, and the datum."""
    prefix = os.environ["K2_LOG"].partition("prefix=")[2].partition("&")[0]
    schema_id, datum = 1 << 30, b"nobody reads this"
    client = Client({"bootstrap.servers": kafka.bootstrap, "log_level": 0})
    client.produce(prefix + TOPIC, b"\0" + schema_id.to_bytes(4, "big") + datum, partition=0)
    assert client.flush(30) == 0
    return schema_id, datum


def assert_all_there(k2: K2, home: Path, unknown: tuple[int, bytes] | None) -> None:
    """Each message is a row with the columns of its version, or the one that nobody can read."""
    versions: dict[tuple[int, int], int] = {}
    with (
        closing(open_log(os.environ["K2_LOG"])) as log,
        closing(open_registry(os.environ["K2_REGISTRY"])) as registry,
    ):
        ids = {found.id: found.version for found in registry.versions(f"{TOPIC}-value")}
        for partition in range(log.topics()[TOPIC]):
            offset = 0
            while batches := log.read(TOPIC, partition, offset, 1 << 24):
                for batch in batches:
                    for at, schema_id in zip(batch.offsets, batch.schema_ids, strict=True):
                        versions[partition, int(at)] = ids.get(int(schema_id), 0)
                    offset = batch.next_offset
    assert set(versions.values()) == ({0, 1, 2} if unknown else {1, 2})
    fields = ("log_partition", "log_offset", "trade_id")
    with opened(home) as reader:
        table = reader.records("trades", Selection(), fields=fields).table
        rejected = reader.ledger("rejected", limit=100).table.to_pylist()
    rows = {(row["log_partition"], row["log_offset"]): row["trade_id"] for row in table.to_pylist()}
    assert table.num_rows == len(rows)
    assert rows.keys() == {place for place, version in versions.items() if version}
    for place, trade_id in rows.items():
        assert (trade_id is None) == (versions[place] == 1), place
    told = [(row["schema_id"], row["raw"]) for row in rejected]
    assert told == ([unknown] if unknown else [])
    assert lag(k2) == 0
