"""A writer that was down for a quarter of an hour comes back: what does it shed, when is it there?

Meanwhile a feed goes on, and a server is asked: is each answer exact, or refused in one clear line?
"""

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow.parquet as pq
from servers.install import place

from bench.home import folder, k2
from bench.kafka import stores
from bench.report import Parts, Timing, audited, console, own_memory, show, timed
from k2.cli.machine import free_port, wait_until_ready
from k2.feeds import EndOfFeed, open_feed
from k2.ingest import levels
from k2.lake import Lake, open_lake
from k2.log import Log, Producer, open_log, open_registry
from k2.model import Topic
from k2.settings import SETTINGS

RATE: Final = 20_000
"""Records a second, while the writer was down and after it has come back."""
DOWN: Final = timedelta(minutes=15)

_PARTITIONS: Final = 2
_LOOK_SECONDS: Final = 0.25
_ASK_SECONDS: Final = 1.0
_IS_THERE: Final = 2.0
"""Seconds of the feed that may wait where a writer commits once a second."""
_OVERLOAD: Final = {s.name: str(s.default) for s in SETTINGS if s.name.startswith("K2_OVERLOAD")}
_ASKED: Final = {
    "last 100 of a symbol": "/v1/trades?symbol=BTCUSDT&last=100",
    "300 bars of a symbol": "/v1/bars/1s?symbol=BTCUSDT&last=300",
    "all symbols": "/v1/symbols",
}
_QUICK: Final = {"K2_OVERLOAD_LAG": "2000 5000 10000 40000"}
"""Far less than what stands in the log even of a quick run."""


def run(*, quick: bool = False, kafka: bool = False, rate: int = RATE) -> None:
    """Print how the writer came back, and what a reader got meanwhile; on SQLite, or on Kafka."""
    if kafka and not place("kafka").is_dir():
        console.print("Kafka is not installed: `make servers` installs it")
        return
    rate, down = (500, timedelta(seconds=60)) if quick else (rate, DOWN)
    settings = {**_OVERLOAD, **(_QUICK if quick else {}), "K2_LOG_PARTITIONS": str(_PARTITIONS)}
    with ExitStack() as stack:
        if kafka:
            at = stack.enter_context(stores())
            home, settings = at.home, {**settings, **at.environment}
        else:
            home = stack.enter_context(folder("backlog"))
        _Backlog(home, settings, rate).run(int(down.total_seconds() * rate))


@dataclass
class _Asked:
    """What a reader got: answers that were exact and not, and such as were refused."""

    exact: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: int = 0
    words: str = ""
    seconds: list[float] = field(default_factory=list)
    refused_seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Came:
    """How a writer came back: seconds until all that stood in the log was committed, and until the
    log's end was reached; records a second.
    """

    worked_off: float
    at_end: float
    rate: float


class _Backlog:
    """One run in one home."""

    def __init__(self, home: Path, settings: Mapping[str, str], rate: int) -> None:
        self._home, self._settings, self._rate = home, settings, rate
        self._parts = Parts()
        self._asked = _Asked()
        self._changes: dict[str, None] = {}
        self._most: dict[str, int] = {}
        self._long: Mapping[str, Timing] = {}
        self._short: Mapping[str, Timing] = {}

    def run(self, records: int) -> None:
        """Fill the log, let the writer come back, and print what was seen."""
        with ExitStack() as stack:
            place_ = self._settings.get("K2_LOG") or self._home / "log.db"
            log = stack.enter_context(closing(open_log(place_)))
            lake = stack.enter_context(closing(open_lake(self._home / "lake")))
            self._fill(log, records)
            port = free_port("127.0.0.1", 8642)
            url = f"http://127.0.0.1:{port}"
            server = stack.enter_context(self._k2("serve", "--port", str(port)))
            feed = f"simulator:?rate={self._rate}&kinds=trades&exchange=live"
            wait_until_ready(url, threading.Event().wait)
            self._parts.end("a server starts, and has read the log")
            self._long = self._timings(url, server.pid)
            with self._k2("feed", feed):
                self._ask(log, url)  # nobody writes yet
                self._parts.end("it is asked")
                with self._k2("ingest") as writer:
                    processes = {"writer": writer, "server": server}
                    with self._asking(log, url):
                        came = self._watch(log, lake, processes)
                    self._parts.end("the writer comes back")
            # The feed has ended; a writer takes what it left, and the answer is everything.
            self._caught_up()
            self._ask(log, url)
            self._short = self._timings(url, server.pid)
            self._parts.end("what the feed had left")
            shed = self._shed(lake)
        audit = audited(self._home, self._settings)
        self._parts.end("audit")
        self._tell(records, came, shed, audit)

    def _timings(self, url: str, server: int) -> dict[str, Timing]:
        """Of each question, how long it takes."""
        found = {}
        for name, path in _ASKED.items():
            found[name] = timed(partial(_got, url + path))
            self._most["server"] = max(self._most.get("server", 0), own_memory(server))
        return found

    def _k2(self, *words: str) -> AbstractContextManager["subprocess.Popen[bytes]"]:
        return k2(self._home, *words, environment=self._settings)

    def _caught_up(self) -> None:
        with self._k2("ingest", "--until-caught-up") as writer:
            assert writer.wait() == 0, "the writer failed"

    def _fill(self, log: Log, records: int) -> None:
        """What a feed sent: a little of it while the writer still ran."""
        schemas = self._settings.get("K2_REGISTRY") or self._home / "registry.db"
        url = f"simulator:?rate=max&kinds=trades&symbols=50&count={records}"
        feed = open_feed(url, None, lambda: datetime.now(UTC))
        (exchange,) = feed.exchanges
        with closing(open_registry(schemas)) as registry, suppress(EndOfFeed):
            producer = Producer(log, registry, _PARTITIONS)
            first = True
            while True:
                for made in feed.read():
                    table = made.table
                    if first:
                        first = False
                        producer.send(exchange, made.kind, table.slice(0, 100))
                        self._caught_up()
                        table = table.slice(100)
                    producer.send(exchange, made.kind, table)
        self._parts.end("the log is filled")

    # ------------------------------------------------------------------ watching

    def _watch(
        self,
        log: Log,
        lake: Lake,
        processes: Mapping[str, "subprocess.Popen[bytes]"],
    ) -> _Came:
        """Until the writer is as near to the log's end as it can be."""
        table = lake.table("trades")
        began = time.monotonic()
        ends, before = _ends(log), _committed(lake)
        worked_off: float | None = None
        first: tuple[float, int] | None = None
        while True:
            now = time.monotonic()
            offsets = {t: of.next_offset for t, of in table.snapshot().offsets.items()}
            if worked_off is None and all(
                offsets.get(topic, {}).get(partition, 0) >= end
                for topic, each in ends.items()
                for partition, end in enumerate(each)
            ):
                worked_off = now - began
            done = _committed(lake)
            if first is None and done > before:
                first = now - began, done
            lag = _count(_ends(log)) - done
            if worked_off is not None and lag <= _IS_THERE * self._rate:
                at, had = first if first and first[1] < done else (0.0, before)
                rate = (done - had) / (now - began - at)
                return _Came(worked_off, now - began, rate)
            for each in levels(log, datetime.now(UTC)):
                self._changes |= dict.fromkeys(f"{c['after']}: {c['reason']}" for c in each.history)
            for name, process in processes.items():
                assert process.poll() is None, f"the {name} has ended"
                self._most[name] = max(self._most.get(name, 0), own_memory(process.pid))
            time.sleep(_LOOK_SECONDS)

    @contextmanager
    def _asking(self, log: Log, url: str) -> Iterator[None]:
        """A thread that asks a question a second."""
        ended = threading.Event()

        def keep_asking() -> None:
            while not ended.wait(_ASK_SECONDS):
                self._ask(log, url)

        thread = threading.Thread(target=keep_asking, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _ask(self, log: Log, url: str) -> None:
        """Ask how many trades there are: as many as the log has had, at any moment between."""
        began, least = time.monotonic(), _count(_ends(log))
        try:
            with urllib.request.urlopen(f"{url}/v1/symbols", timeout=120) as answer:
                data = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            told = json.load(error)["error"]
            self._asked.refused += 1
            self._asked.refused_seconds.append(time.monotonic() - began)
            self._asked.words = f"{error.code}: {told['message']}; {told['hint']}"
            return
        self._asked.seconds.append(time.monotonic() - began)
        found, most = sum(row["trades"] for row in data), _count(_ends(log))
        if least <= found <= most:
            self._asked.exact += 1
        else:
            self._asked.wrong.append(f"{found:,}, not {least:,} to {most:,}")

    def _shed(self, lake: Lake) -> int:
        return sum(pq.read_metadata(file.path).num_rows for file in lake.ledger_files("shed"))

    # ------------------------------------------------------------------ telling

    def _tell(self, records: int, came: _Came, shed: int, audit: str) -> None:
        asked = self._asked
        console.print(f"what a reader is told that cannot be answered: {asked.words or '-'}")
        asked_for: list[list[object]] = [
            [f"{name}, {how}: p50, p99, ms", f"{of.p50 * 1e3:,.3g}, {of.p99 * 1e3:,.3g}"]
            for how, timings in (("before the writer", self._long), ("after", self._short))
            for name, of in timings.items()
        ]
        longest = {"answered": asked.seconds, "refused": asked.refused_seconds}
        rows: list[list[object]] = [
            [
                "seconds until all that stood in the log is committed, with the start",
                came.worked_off,
            ],
            ["… until the end of the log is reached, the feed going on", came.at_end],
            ["records/s of the writer, from its first commit on", f"{came.rate:,.0f}"],
            ["levels of overload besides NORMAL", "; ".join(self._changes) or "none"],
            ["entries of the shed ledger", shed],
            *(
                [f"{name}: most memory of its own, MiB", most / 2**20]
                for name, most in self._most.items()
            ),
            ["answers of the reader, exact", asked.exact],
            ["answers that were not", "; ".join(asked.wrong) or "none"],
            ["questions refused, the writer being far behind", asked.refused],
            *([f"longest time until {n}, s", max(of)] for n, of in longest.items() if of),
            *asked_for,
            ["audit", audit],
            *([f"seconds: {name}", seconds] for name, seconds in self._parts),
        ]
        where = "Kafka" if "K2_LOG" in self._settings else "SQLite"
        show(f"{records:,} records in {where} before a writer that comes back", ["", ""], rows)


def _got(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        got: bytes = answer.read()
    return got


def _ends(log: Log) -> dict[str, list[int]]:
    """The ends of every partition with trades."""
    topics = {name: Topic.parse(name) for name in log.topics()}
    trades = [name for name, topic in topics.items() if topic and topic.kind == "trades"]
    return {name: list(log.end_offsets(name)) for name in trades}


def _count(ends: Mapping[str, list[int]]) -> int:
    return sum(end for each in ends.values() for end in each)


def _committed(lake: Lake) -> int:
    offsets = lake.table("trades").snapshot().offsets
    return sum(offset for of in offsets.values() for offset in of.next_offset.values())
