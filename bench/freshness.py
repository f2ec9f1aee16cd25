"""From append to visible: a trade appended under load, and the first answer that has it."""

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

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
    with folder("freshness") as home:
        show_freshness(home, 20 if quick else 300, {})


def show_freshness(home: Path, probes: int, environment: Mapping[str, str]) -> None:
    """Print it for the log that `environment` names (none: that of `home`)."""
    start = partial(k2, home, environment=environment)
    url = f"simulator:?rate=max&kinds=trades&exchange=probe&symbols=1&chunk=1&count={probes}"
    feed = open_feed(url, None, lambda: datetime.now(UTC))
    (exchange,) = feed.exchanges
    took = []
    with ExitStack() as stack:
        stack.enter_context(start("feed", f"simulator:?rate={RATE}"))
        stack.enter_context(start("ingest"))
        time.sleep(5)
        place = environment.get("K2_LOG")
        log = stack.enter_context(closing(open_log(place or home / "log.db")))
        schemas = environment.get("K2_REGISTRY")
        registry = stack.enter_context(closing(open_registry(schemas or home / "registry.db")))
        reader = stack.enter_context(open_reader(home, log=place, registry=schemas, follow=True))
        producer = Producer(log, registry, 1)
        for number in range(probes):
            table = _of_now(feed.read()[0].table)
            wanted = table["trade_id"][0].as_py()
            began = time.perf_counter()
            producer.send(exchange, "trades", table)
            if number:
                _until_seen(reader, wanted)
                took.append((time.perf_counter() - began) * 1000)
            else:
                reader.records("trades", Selection(exchanges=("probe",)), last=1)
            time.sleep(0.05)
    p50, p99 = np.percentile(took, [50, 99])
    show(
        f"Freshness at {RATE:,} records/s, {len(took)} probes; the aim is a p99 of 100 ms",
        ["", "p50 ms", "p99 ms"],
        [["append to visible in a query", float(p50), float(p99)]],
    )


def _of_now(table: pa.Table) -> pa.Table:
    """The trade as made just now: as fast as it goes, the market has a time of its own."""
    index = table.schema.get_field_index("timestamp")
    field = table.schema.field(index)
    return table.set_column(index, field, pa.array([datetime.now(UTC)], field.type))


def _until_seen(reader: Reader, trade_id: str) -> None:
    while True:
        answer = reader.records("trades", Selection(exchanges=("probe",)), last=1)
        found: pa.Table = answer.table
        if found.num_rows and found["trade_id"][0].as_py() == trade_id:
            return
