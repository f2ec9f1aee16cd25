"""From append to visible: a trade appended under load, and the first answer that has it."""

import time
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from bench.home import folder, k2
from bench.report import show
from k2.feeds import open_feed
from k2.log import Producer, open_log, open_registry
from k2.query import Reader, Selection, open_reader

RATE = 20_000


def run(*, quick: bool = False) -> None:
    """Print how long an appended trade takes to be in an answer, at 20,000 records/s beside it."""
    probes = 20 if quick else 300
    with folder("freshness") as home:  # noqa: SIM117 (three would not fit a line)
        with k2(home, "feed", f"simulator:?rate={RATE}"), k2(home, "ingest"):
            time.sleep(5)
            log, registry = open_log(home / "log.db"), open_registry(home / "registry.db")
            producer = Producer(log, registry, 1)
            url = (
                f"simulator:?rate=max&kinds=trades&exchange=probe&symbols=1&chunk=1&count={probes}"
            )
            feed = open_feed(url, None, lambda: datetime.now(UTC))
            (exchange,) = feed.exchanges
            took = []
            with open_reader(home, follow=True) as reader:
                for number in range(probes):
                    table = feed.read()[0].table
                    wanted = table["trade_id"][0].as_py()
                    began = time.perf_counter()
                    producer.send(exchange, "trades", table)
                    if number:
                        _until_seen(reader, wanted)
                        took.append((time.perf_counter() - began) * 1000)
                    else:
                        reader.records("trades", Selection(exchanges=("probe",)), last=1)
                    time.sleep(0.05)
            log.close()
            registry.close()
    p50, p99 = np.percentile(took, [50, 99])
    show(
        f"Freshness at {RATE:,} records/s, {len(took)} probes; the aim is a p99 of 100 ms",
        ["", "p50 ms", "p99 ms"],
        [["append to visible in a query", float(p50), float(p99)]],
    )


def _until_seen(reader: Reader, trade_id: str) -> None:
    while True:
        answer = reader.records("trades", Selection(exchanges=("probe",)), last=1)
        found: pa.Table = answer.table
        if found.num_rows and found["trade_id"][0].as_py() == trade_id:
            return
