"""10,000 records/s with bursts of 50,000/s, on a real Kafka: how far does the writer lag?"""

import json
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from typing import Final

from servers.install import place

from bench.home import k2
from bench.kafka import Stores, stores
from bench.report import console, show
from k2.feeds import open_feed
from k2.lake import LakeTable, open_lake
from k2.log import Log, Producer, open_log, open_registry

_BASE: Final = 10_000
_BURST: Final = 40_000
_BURST_SECONDS: Final = 10
_CHUNKS: Final = 10
"""Sends a second of a burst."""


def run(*, quick: bool = False) -> None:
    """A burst a minute, for ten minutes: the greatest lag, and seconds until it has gone again."""
    if not place("kafka").is_dir():
        console.print("Kafka is not installed: `make servers` installs it")
        return
    with stores() as at:
        _bursts(at, 1 if quick else 10, 30.0 if quick else 60.0)


def _bursts(at: Stores, times: int, every: float) -> None:
    chunk = _BURST // _CHUNKS
    feed = open_feed(
        f"simulator:?rate=max&kinds=trades&exchange=burst&chunk={chunk}&seed=2",
        None,
        lambda: datetime.now(UTC),
    )
    (exchange,) = feed.exchanges
    start = partial(k2, at.home, environment=at.environment)
    rows: list[list[object]] = []
    with ExitStack() as stack:
        log = stack.enter_context(closing(open_log(at.environment["K2_LOG"])))
        registry = stack.enter_context(closing(open_registry(at.environment["K2_REGISTRY"])))
        lake = stack.enter_context(closing(open_lake(at.home / "lake")))
        producer, table = Producer(log, registry, 2), lake.table("trades")
        writer = stack.enter_context(start("ingest"))
        source = stack.enter_context(start("feed", f"simulator:?rate={_BASE}&kinds=trades"))
        time.sleep(10)
        for number in range(times):
            began = time.monotonic()
            calm = _lag(log, table)
            for turn in range(_BURST_SECONDS * _CHUNKS):
                producer.send(exchange, "trades", feed.read()[0].table)
                time.sleep(max(0.0, began + (turn + 1) / _CHUNKS - time.monotonic()))
            ended = time.monotonic()
            most = _lag(log, table)
            # Two commits' worth of the base rate is what a writer that keeps up has before it.
            while (lag := _lag(log, table)) > max(
                calm, 2 * _BASE
            ) and time.monotonic() < ended + 60:
                most = max(most, lag)
                time.sleep(0.1)
            sent = _BURST_SECONDS * _BURST
            rows.append(
                [number + 1, calm, f"{sent / (ended - began):,.0f}", most, time.monotonic() - ended]
            )
            time.sleep(max(0.0, began + every - time.monotonic()))
        for process in (source, writer):
            process.terminate()
            process.wait(60)
    show(
        f"Bursts of {_BURST:,}/s for {_BURST_SECONDS} s on top of {_BASE:,}/s",
        ["burst", "lag before", "its records/s", "most lag", "s until it is gone"],
        rows,
    )
    _prove(at)


def _lag(log: Log, table: LakeTable) -> int:
    """Messages in the log that are not committed."""
    offsets = table.snapshot().offsets
    return sum(
        log.end_offset(topic, p) - (offsets[topic].next_offset.get(p, 0) if topic in offsets else 0)
        for topic, partitions in log.topics().items()
        for p in range(partitions)
    )


def _prove(at: Stores) -> None:
    """Bring in what is left, and count every record's fate."""
    with k2(at.home, "ingest", "--until-caught-up", environment=at.environment) as last:
        last.wait(120)
    command = [sys.executable, "-m", "k2", "--home", str(at.home), "audit", "--json"]
    environment = {"PATH": "/usr/bin:/bin", **at.environment}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = json.loads(done.stdout)
    totals = {
        fate: sum(of[fate] for of in found["partitions"])
        for fate in ("committed", "duplicate", "rejected", "in_flight")
    }
    console.print(f"audit ok: {found['ok']}; {totals}")
