"""Three brokers, one killed again and again: how long do producing and reading pause?"""

import json
import threading
import time
from collections.abc import Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from confluent_kafka.admin import AdminClient
from servers.install import place
from tests.servers.kafka import BrokerOptions, Kafka, cluster

from bench.home import folder
from bench.report import console, show
from k2.errors import K2Error
from k2.log import Append, Log, open_log

_TOPIC: Final = "market.crypto.trades.failover"
_EVERY_SECONDS: Final = 0.01
_RECOVER_SECONDS: Final = 8.0
_QUICK: Final = BrokerOptions({"broker.session.timeout.ms": "1000"}, heap="128m")


def run(*, quick: bool = False) -> None:
    """Kill the active controller and the partition's leader in turns, 20 times in all."""
    if not place("kafka").is_dir():
        console.print("Kafka is not installed: `make servers` installs it")
        return
    with folder("failover") as home:
        # Clients wait for a broker's session to end before another leads its partitions.
        brokers = cluster(home, options=_QUICK)
        try:
            _fail_over(brokers, 2 if quick else 20)
        finally:
            for broker in brokers:
                broker.kill()


def _fail_over(brokers: Sequence[Kafka], times: int) -> None:
    bootstrap = ",".join(broker.bootstrap for broker in brokers)
    log = open_log(f"kafka:{bootstrap}?replication={len(brokers)}")
    log.create(_TOPIC, 1)
    at_work = _Work(log)
    pauses: dict[str, list[tuple[float, float]]] = {"controller": [], "leader": []}
    with at_work:
        time.sleep(2)
        for number in range(times):
            who = "leader" if number % 2 else "controller"
            victim = brokers[(_leader(bootstrap) if number % 2 else _controller(brokers)) - 1]
            began = time.monotonic()
            victim.kill()
            time.sleep(_RECOVER_SECONDS)
            pauses[who].append((at_work.produced.pause(began), at_work.read.pause(began)))
            victim.start()
            # Until its replicas have caught up, the next kill would leave too few.
            time.sleep(_RECOVER_SECONDS)
    sent, got = at_work.produced.count, at_work.read.count
    log.close()
    rows: list[list[object]] = []
    for who, of in pauses.items():
        for what, seconds in zip(("producing", "reading"), zip(*of, strict=True), strict=True):
            p50, most = np.percentile(seconds, [50, 100])
            rows.append([f"{who} killed: {what} pauses", float(p50), float(most)])
    show(
        f"Fail-over of three brokers, {times} kills; {sent:,} acknowledged, {got:,} read",
        ["", "p50 s", "most s"],
        rows,
    )


class _Moments:
    """When something happened."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self.count = 0

    def add(self, count: int) -> None:
        self._moments.append(time.monotonic())
        self.count += count

    def pause(self, since: float) -> float:
        """The longest time between two of them, from the last one before `since` on."""
        moments = np.array(self._moments)
        first = max(int(np.searchsorted(moments, since)) - 1, 0)
        return float(np.diff(np.append(moments[first:], time.monotonic())).max())


class _Work:
    """A thread that appends a message at a time, and one that reads them."""

    def __init__(self, log: Log) -> None:
        self.produced, self.read = _Moments(), _Moments()
        self._log = log
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._produce, self._consume)]

    def __enter__(self) -> "_Work":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _produce(self) -> None:
        number = 0
        while not self._stopped.wait(_EVERY_SECONDS):
            try:
                self._log.append([Append(_TOPIC, 0, 1, pa.array([b"%d" % number], pa.binary()))])
            except K2Error:
                continue  # what a feed does as well: it tries again
            self.produced.add(1)
            number += 1

    def _consume(self) -> None:
        offset = 0
        while not self._stopped.wait(_EVERY_SECONDS):
            try:
                batches = self._log.read(_TOPIC, 0, offset, 1 << 20)
            except K2Error:
                continue
            for batch in batches:
                offset = batch.next_offset
                self.read.add(len(batch.offsets))


def _controller(brokers: Sequence[Kafka]) -> int:
    """The node that leads the quorum, as a running node's own state says."""
    running = next(broker for broker in brokers if broker.running)
    state = running.folder / "data" / "__cluster_metadata-0" / "quorum-state"
    return int(json.loads(state.read_text())["leaderId"])


def _leader(bootstrap: str) -> int:
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    return int(admin.list_topics(timeout=10).topics[_TOPIC].partitions[0].leader)
