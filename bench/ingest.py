"""Simulator as fast as it goes, through the log into committed rows, as two processes.

Beside it the CPU time of each part alone, and the limit that their sum sets for these cores.
"""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from bench.home import folder, k2
from bench.report import show
from k2.feeds import open_feed
from k2.ingest import Decider
from k2.ingest.known import Known
from k2.ingest.tracking import Sequences
from k2.lake import LakeTable, open_lake, sort_indices
from k2.log import Append, open_log, open_registry
from k2.model import Topic, decode, encode, latest

URL = "simulator:?rate=max&kinds=trades"
ROWS = 65_536  # a block of the simulator: every read is as long
ROUNDS = 20


def run(*, quick: bool = False) -> None:
    """Print the rate committed, the parts alone, and how near it comes to their limit."""
    parts = _parts(3 if quick else ROUNDS)
    rate = _committed(5.0 if quick else 60.0)
    decoding = parts.pop("decode")  # deciding decodes: shown, and not counted twice
    duplicates = parts.pop("find duplicates")  # deciding looks for them: likewise
    limit = (os.cpu_count() or 1) / sum(parts.values()) * 1e6
    proving = duplicates + parts["follow sequences"]
    figures: list[list[object]] = [
        [name, cost, f"{1e6 / cost:,.0f}"] for name, cost in parts.items()
    ]
    figures += [
        ["  of that, decode alone", decoding, f"{1e6 / decoding:,.0f}"],
        ["  of that, find duplicates", duplicates, f"{1e6 / duplicates:,.0f}"],
        ["without duplicates and sequences", sum(parts.values()) - proving, ""],
        ["their share of all (aim: 0.15)", proving, f"{proving / sum(parts.values()):.3f}"],
        ["limit: cores over the sum", sum(parts.values()), f"{limit:,.0f}"],
        ["committed by two processes", "", f"{rate:,.0f}"],
        ["share of the limit", "", f"{rate / limit:.2f}"],
    ]
    show("Ingest of trades", ["part", "CPU us/record", "records/s"], figures)


def _committed(seconds: float) -> float:
    with folder("ingest") as home:
        lake = open_lake(home / "lake")
        table = lake.table("trades")
        with k2(home, "feed", URL), k2(home, "ingest"):
            while not table.snapshot().sequence:
                time.sleep(0.05)
            began, rows = time.monotonic(), table.snapshot().files.rows
            time.sleep(seconds)
            ended = time.monotonic()
            gained = table.snapshot().files.rows - rows
        lake.close()
    return gained / (ended - began)


def _parts(rounds: int) -> dict[str, float]:
    """CPU microseconds a record of each part, alone."""
    schema = latest("trades")
    spent: dict[str, float] = {}

    def cost(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        made = work()
        spent[name] = spent.get(name, 0.0) + (time.process_time() - began) / ROWS / rounds * 1e6
        return made

    with folder("parts") as home:
        log, registry = open_log(home / "log.db"), open_registry(home / "registry.db")
        lake = open_lake(home / "lake")
        table = lake.table("trades")
        feed = open_feed(f"{URL}&chunk={ROWS}", None, lambda: datetime.now(UTC))
        (exchange,) = feed.exchanges
        topic = Topic(exchange.asset_class, "trades", exchange.name)
        log.create(str(topic), 1)
        schema_id = registry.register(topic.subject, schema.avro)
        known = Known("trades", table, table.snapshot())
        decider = Decider(topic, "bench", exchange, registry, known, timedelta(minutes=5))
        twin = Known("trades", table, table.snapshot())
        sequences = Sequences(lake, table, table.snapshot(), timedelta(seconds=10))
        for number in range(rounds):
            made = cost("make", feed.read)[0].table
            values = cost("encode", partial(encode, made, schema))
            append = Append(str(topic), 0, schema_id, values)
            cost("append", partial(log.append, [append]))
            batches = cost("read", partial(log.read, str(topic), 0, number * ROWS, 64 << 20))
            cost("decode", partial(decode, values, schema.avro, schema))
            decided = cost(
                "decode and decide", partial(decider.decide, batches, {0: number * ROWS})
            )
            rows = decided.rows
            cost("find duplicates", partial(twin.find, exchange.name, rows))
            follow = partial(sequences.sequence, [decided], [exchange])
            sequences.advance(table.snapshot(), [], cost("follow sequences", follow))
            cost("sort and Parquet", partial(_write, table, rows))
        lake.close()
        registry.close()
        log.close()
    return spent


def _write(table: LakeTable, rows: pa.Table) -> None:
    day = rows["exchange_date"][0].as_py()
    rows = rows.take(pa.array(sort_indices(rows)))
    rows = rows.append_column("commit_sequence", pa.nulls(len(rows), pa.int64()))
    table.write(rows, day)
