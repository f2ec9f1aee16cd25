"""Writers on Kafka, whatever befalls them, their lines, the broker or the catalog.

A run is one fault out of a seed, while records come; ten of them share a home. Each record has one
fate in the end, and what the log lost by an operator's word is told. `K2_TEST_RUNS` has more runs.
"""

import os
import random
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from k2.errors import Conflict, Unavailable
from k2.feeds import Records, open_feed
from k2.ingest import accept_loss, audit, table_of
from k2.log import Producer
from k2.model import Exchange, Topic
from tests.journeys.home import STEPS, Blow, Home, now, open_home, start_writer
from tests.journeys.test_killed import Place, assert_exact, places_in_lake, places_in_log
from tests.journeys.test_writers import wait_for
from tests.servers.kafka import BrokerOptions, Kafka, Listener
from tests.servers.process import free_port
from tests.servers.toxiproxy import Proxy, Toxiproxy

RUNS = int(os.environ.get("K2_TEST_RUNS", "13"))
SEED = int(os.environ.get("K2_TEST_SEEDS", "1").partition(",")[0])
RUNS_A_HOME: Final = 10
LINES: Final = ("ONE", "TWO", "THREE")
TRADES: Final = "market.crypto.trades.simulated"


class Scene:
    """A home whose log is on a broker, and its writers, each with a line of its own to it."""

    def __init__(self, home: Home, broker: Kafka, proxies: list[Proxy], seed: int) -> None:
        self.home = home
        self.broker = broker
        self.proxies = proxies
        self.chance = random.Random(seed)
        self.prefix = f"faults-{seed}."
        self.gone: Counter[Place] = Counter()
        """Places that the log held and holds no more (or again, after the broker died)."""
        self.lost: Counter[Place] = Counter()
        """Those of them that were never committed."""
        self.writers = [self.start(line) for line in range(len(proxies))]
        self._feed = open_feed(
            f"simulator:?rate=max&symbols=8&seed={seed}"
            "&duplicates=0.02&late=0.02&malformed=0.02&chunk=500",
            None,
            now,
        )
        self.producer = self.new_producer()

    def new_producer(self) -> Producer:
        """One that knows the topics' partitions as they are now."""
        return Producer(self.home.log, self.home.registry, 3)

    def feed(self) -> None:
        """Some more records into the log."""
        (exchange,) = self._feed.exchanges
        for _ in range(self.chance.randrange(1, 4)):
            for records in self._feed.read():
                self.send(exchange, records)

    def send(self, exchange: Exchange, records: Records) -> None:
        """Send again what the log did not take, as feeds do."""
        while True:
            try:
                self.producer.send(exchange, records.kind, records.table)
                return
            except Unavailable:
                time.sleep(0.1)

    def start(self, line: int, blow: Blow | None = None) -> BaseProcess:
        url = f"kafka:{self.proxies[line].address}?prefix={self.prefix}&timeout=5"
        return start_writer(self.home.folder, blow, until_caught_up=False, log_url=url)

    def end(self, line: int) -> None:
        """Have a writer end as an operator does."""
        self.writers[line].terminate()
        self.writers[line].join(60)
        assert self.writers[line].exitcode in (0, 3, -signal.SIGKILL)

    def supervise(self) -> None:
        """Start a writer in the place of each that has ended."""
        for line, writer in enumerate(self.writers):
            if not writer.is_alive():
                # Killed, or started while the broker was away.
                assert writer.exitcode in (3, -signal.SIGKILL), writer.exitcode
                self.writers[line] = self.start(line)

    def line(self) -> int:
        return self.chance.randrange(len(self.writers))

    def is_caught_up(self) -> bool:
        self.supervise()
        log, lake = self.home.log, self.home.lake
        for topic, partitions in log.topics().items():
            parsed = Topic.parse(topic)
            assert parsed is not None
            of = lake.table(table_of(parsed.kind)).snapshot().offsets.get(topic)
            if of is None or of.log_id != log.identity(topic):
                return False
            for partition in range(partitions):
                if of.next_offset.get(partition, 0) < log.end_offset(topic, partition):
                    return False
        return True

    def catch_up(self, what: str) -> None:
        wait_for(self.is_caught_up, what, 120)

    def committed(self, partition: int) -> int:
        of = self.home.lake.table("trades").snapshot().offsets.get(TRADES)
        return 0 if of is None else of.next_offset.get(partition, 0)


@contextmanager
def killed(scene: Scene) -> Iterator[None]:
    """At a step of a commit, or anywhere."""
    line = scene.line()
    if scene.chance.random() < 0.5:
        scene.end(line)
        step = scene.chance.choice(STEPS)
        scene.writers[line] = scene.start(
            line, Blow(step, scene.chance.randrange(1, 4), signal.SIGKILL)
        )
    yield
    scene.writers[line].join(scene.chance.random() * 2)
    scene.writers[line].kill()


@contextmanager
def frozen(scene: Scene) -> Iterator[None]:
    """For a moment, or for so long that the others take over."""
    writer = scene.writers[scene.line()]
    time.sleep(scene.chance.random())
    if writer.is_alive() and writer.pid is not None:
        os.kill(writer.pid, signal.SIGSTOP)
    yield
    time.sleep(scene.chance.choice((0.2, 1.0, 9.0)))
    if writer.is_alive() and writer.pid is not None:
        os.kill(writer.pid, signal.SIGCONT)


@contextmanager
def line_cut(scene: Scene) -> Iterator[None]:
    """Connections end, and none is had for a while."""
    proxy = scene.proxies[scene.line()]
    proxy.cut()
    yield
    time.sleep(scene.chance.choice((0.0, 0.5, 9.0)))
    proxy.mend()


@contextmanager
def line_dead(scene: Scene) -> Iterator[None]:
    """Connections stay, and nothing comes through."""
    proxy = scene.proxies[scene.line()]
    with proxy.fault("timeout", scene.chance.choice(("upstream", "downstream")), timeout=0):
        yield
        time.sleep(scene.chance.choice((0.5, 3.0, 9.0)))


@contextmanager
def line_slow(scene: Scene) -> Iterator[None]:
    proxy = scene.proxies[scene.line()]
    with proxy.fault("latency", latency=scene.chance.randrange(50, 1_500), jitter=50):
        yield
        time.sleep(2)


@contextmanager
def line_breaks_off(scene: Scene) -> Iterator[None]:
    """Each connection ends in the middle of an answer."""
    proxy = scene.proxies[scene.line()]
    with proxy.fault("limit_data", bytes=scene.chance.randrange(1_000, 60_000)):
        yield
        time.sleep(2)


@contextmanager
def answer_lost(scene: Scene) -> Iterator[None]:
    """The commit is made, or it is not, and its writer never hears of it."""
    line = scene.line()
    scene.end(line)
    step = scene.chance.choice(("before swap", "after swap"))
    scene.writers[line] = scene.start(line, Blow(step, scene.chance.randrange(1, 4), None))
    yield


@contextmanager
def catalog_away(scene: Scene) -> Iterator[None]:
    with closing(sqlite3.connect(scene.home.lake.folder / "catalog.db", timeout=30)) as held:
        held.execute("BEGIN IMMEDIATE")
        yield
        time.sleep(scene.chance.choice((1.0, 6.0, 12.0)))
        held.rollback()


@contextmanager
def broker_away(scene: Scene) -> Iterator[None]:
    scene.broker.kill()
    time.sleep(scene.chance.choice((0.0, 5.0)))
    scene.broker.start()
    yield


@contextmanager
def partitions_added(scene: Scene) -> Iterator[None]:
    count = scene.home.log.topics()[TRADES] + 1
    name = scene.prefix + TRADES
    client = admin(scene)
    client.create_partitions([NewPartitions(name, count)])[name].result(30)
    wait_for(lambda: scene.home.log.topics()[TRADES] == count, "one more partition")
    scene.producer = scene.new_producer()
    yield


@contextmanager
def topic_made_anew(scene: Scene) -> Iterator[None]:
    """All of the old one is committed: what is not would be lost unseen."""
    scene.catch_up("before the topic is deleted")
    scene.gone |= Counter(p for p in places_in_log(scene.home).elements() if p[0] == TRADES)
    before = scene.home.log.identity(TRADES)
    name = scene.prefix + TRADES
    client = admin(scene)
    client.delete_topics([name])[name].result(30)
    wait_for(lambda: TRADES not in scene.home.log.topics(), "the topic to go")
    time.sleep(scene.chance.choice((0.0, 2.0)))
    scene.producer = scene.new_producer()
    scene.feed()
    wait_for(lambda: scene.home.log.identity(TRADES) != before, "another topic")
    yield


@contextmanager
def log_truncated(scene: Scene) -> Iterator[None]:
    """Under the table's offset, while no writer runs; they stop there until told to go on."""
    for line in range(len(scene.writers)):
        scene.end(line)
    scene.feed()
    scene.feed()
    log, lake = scene.home.log, scene.home.lake
    log_id = log.identity(TRADES)
    places = places_in_log(scene.home)
    lost = []
    for partition in range(log.topics()[TRADES]):
        committed, end = scene.committed(partition), log.end_offset(TRADES, partition)
        if committed < end:
            before = scene.chance.randrange(committed + 1, end + 1)
            assert log.trim(TRADES, partition, before) == before
            offsets = range(before)
            mine = Counter((TRADES, log_id, partition, offset) for offset in offsets) & places
            scene.gone |= mine
            scene.lost += Counter(p for p in mine.elements() if p[3] >= committed)
            lost.append(partition)
    scene.writers = [scene.start(line) for line in range(len(scene.writers))]
    yield
    if scene.chance.random() < 0.5:
        wait_for(lambda: told(scene) >= set(lost), "the loss is told", 90)
    for partition in lost:
        accept(scene, partition)
    assert not audit(log, lake).partitions[0].problem


def told(scene: Scene) -> set[int]:
    """Partitions of which the table knows a loss that is not accepted."""
    losses = scene.home.lake.table("trades").snapshot().losses
    return {loss.partition for loss in losses if not loss.accepted}


def accept(scene: Scene, partition: int) -> None:
    while True:
        try:
            accept_loss(scene.home.log, scene.home.lake, f"{TRADES}[{partition}]", now())
            return
        except Conflict:
            continue  # a writer committed meanwhile


def admin(scene: Scene) -> AdminClient:
    return AdminClient({"bootstrap.servers": scene.broker.bootstrap, "log_level": 0})


FAULTS: Final[tuple[Callable[[Scene], AbstractContextManager[None]], ...]] = (
    *(killed, frozen, line_cut, line_dead, line_slow, line_breaks_off, answer_lost),
    *(catalog_away, broker_away, partitions_added, topic_made_anew, log_truncated),
)


def drawn(
    chance: random.Random, count: int
) -> list[Callable[[Scene], AbstractContextManager[None]]]:
    """Faults, each once before one comes again."""
    found: list[Callable[[Scene], AbstractContextManager[None]]] = []
    while len(found) < count:
        found += chance.sample(FAULTS, len(FAULTS))
    return found[:count]


@pytest.mark.slow
@pytest.mark.timeout(300 + 60 * RUNS)
def test_whatever_befalls_writers(
    tmp_path: Path, make_kafka: Callable[..., Kafka], toxiproxy: Toxiproxy
) -> None:
    ways = {name: f"127.0.0.1:{free_port()}" for name in LINES}
    listeners = {name: Listener(advertised=address) for name, address in ways.items()}
    broker = make_kafka(BrokerOptions(listeners=listeners))
    proxies = [toxiproxy.route(n, broker.address(n), address) for n, address in ways.items()]
    faults = drawn(random.Random(SEED), RUNS)
    for number, first in enumerate(range(0, RUNS, RUNS_A_HOME)):
        folder = tmp_path / f"home-{number}"
        folder.mkdir()
        seed = 1_000 * SEED + number
        with open_home(
            folder, f"kafka:{broker.bootstrap}?prefix=faults-{seed}.&timeout=30"
        ) as home:
            scene = Scene(home, broker, proxies[: 2 + number % 2], seed)
            try:
                play(scene, faults[first : first + RUNS_A_HOME])
            finally:
                for writer in scene.writers:
                    writer.kill()


def play(scene: Scene, faults: list[Callable[[Scene], AbstractContextManager[None]]]) -> None:
    home = scene.home
    scene.feed()
    scene.catch_up("the beginning")
    for fault in faults:
        what = f"seed {scene.prefix}, {fault.__name__}"
        scene.feed()
        with fault(scene):
            for _ in range(3):
                scene.feed()
                time.sleep(scene.chance.random() * 0.3)
        scene.feed()
        scene.catch_up(what)
        assert_exact(home)
    for line in range(len(scene.writers)):
        scene.end(line)
    held, log = places_in_lake(home), places_in_log(home)
    wanted = (scene.gone | log) - scene.lost
    assert not held - wanted, (scene.prefix, sorted(held - wanted)[:5])
    assert not wanted - held, (scene.prefix, sorted(wanted - held)[:5])
    assert set(held.values()) == {1}
