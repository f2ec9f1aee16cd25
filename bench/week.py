"""A table that takes a commit for each second of a market's time, with maintenance beside it.

The clock is turned: a second of the market takes as long as its commit. Commits, queries, metadata
and files are told for each tenth of the run; in the last one they are to be what they were before.
"""

import multiprocessing
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.home import folder
from bench.market import EXCHANGE, SYMBOLS, rows
from bench.report import show
from k2.lake import Commit, Lake, TopicOffsets, maintain, open_lake, sort_rows
from k2.log import open_log, open_registry
from k2.model import Exchange
from k2.query import Selection, open_reader

ROWS = 200
"""Rows a second: small files are what is to be withstood."""
SECONDS_A_ROUND = 60
"""Of the market's time, between two rounds of maintenance."""
_START = datetime(2026, 1, 5, tzinfo=UTC)


def run(*, quick: bool = False, minutes: int = 10) -> None:
    """Print ten lines; `minutes` is how long it runs."""
    seconds = 20 if quick else minutes * 60
    _, made = next(iter(rows("trades", 5 * 100_000)))
    with folder("week") as home:
        new = multiprocessing.get_context("spawn")
        now = new.Value("d", _START.timestamp())
        open_log(f"sqlite:{home}/log.db").close()
        open_registry(f"embedded:{home}/registry.db").close()
        stop = new.Event()
        keeper = new.Process(target=_keep, args=(home, now, stop), daemon=True)
        lake = open_lake(home / "lake", clock=_clock(now))
        _commit(lake, made, 0)
        keeper.start()
        with open_reader(home, clock=_clock(now)) as reader:
            _ask(reader, _clock(now)())
            figures = []
            began, number = time.perf_counter(), 1
            for tenth in range(1, 11):
                commits: list[float] = []
                queries: list[float] = []
                while not queries or time.perf_counter() - began < seconds * tenth / 10:
                    now.value += 1.0
                    commits.append(_timed(lambda n=number: _commit(lake, made, n)))  # type: ignore[misc]
                    number += 1
                    if number % 20 == 0:
                        queries.append(_timed(lambda: _ask(reader, _clock(now)())))
                figures.append(_line(lake, home, number, commits, queries))
        stop.set()
        keeper.join(60)
        lake.close()
    columns = ["commits", "commit p50 ms", "p99", "two queries p50 ms", "p99"]
    columns += ["files", "metadata KiB", "on disk"]
    show(f"A commit a second, {number:,} of them in {seconds:,} s", columns, figures)


def _clock(now: "Synchronized[float]") -> Callable[[], datetime]:
    return lambda: datetime.fromtimestamp(now.value, UTC)


def _commit(lake: Lake, made: pa.Table, number: int) -> None:
    table = lake.table("trades")
    when = _START + timedelta(seconds=number)
    some = made.slice(number * ROWS % (made.num_rows - ROWS), ROWS).combine_chunks()
    offsets = np.arange(number * ROWS, (number + 1) * ROWS)
    times = int(when.timestamp()) * 1_000_000 + np.sort(offsets * 7919 % 1_000_000)
    for name, values in (
        ("timestamp", pa.array(times).view(pa.timestamp("us", tz="UTC"))),
        ("exchange_date", pa.array([when.date()] * ROWS)),
        ("log_offset", pa.array(offsets)),
        ("trade_id", pa.array(offsets).cast(pa.string())),
    ):
        at = some.schema.get_field_index(name)
        some = some.set_column(at, some.schema.field(name), values)
    file = table.write(sort_rows(some), when.date())
    topic = f"market.crypto.trades.{EXCHANGE}"
    end = {topic: TopicOffsets("bench", {0: (number + 1) * ROWS})}
    exchange = Exchange(EXCHANGE, "crypto", "UTC")
    table.commit(Commit((file,), table.snapshot().offsets, end, exchanges=(exchange,)))
    if number % 30 == 29:
        lake.absorb("trades")


def _ask(reader, now: datetime) -> None:  # type: ignore[no-untyped-def]
    reader.records("trades", Selection((SYMBOLS[3],)), last=100)
    reader.bars(Selection((SYMBOLS[3],), start=now - timedelta(hours=1)), "1m")


def _keep(home: Path, now: "Synchronized[float]", stop) -> None:  # type: ignore[no-untyped-def]
    lake = open_lake(home / "lake", clock=_clock(now))
    with open_reader(home, clock=_clock(now)) as reader:
        last = 0.0
        while not stop.is_set():
            if now.value - last < SECONDS_A_ROUND:
                time.sleep(0.05)
                continue
            last = now.value
            for name in lake.tables():
                maintain(lake, name)
            reader.roll_up()
    lake.close()


def _timed(what: Callable[[], object]) -> float:
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


def _line(
    lake: Lake, home: Path, number: int, commits: list[float], queries: list[float]
) -> list[object]:
    head = lake.table("trades").head()
    document = Path(head.location.removeprefix("file://")).stat().st_size
    data = sum(1 for _ in (home / "lake/tables/trades/data").rglob("*.parquet"))
    return [
        f"{number:,}",
        *(float(np.percentile(of, p)) for of in (commits, queries) for p in (50, 99)),
        len(head.snapshot.files),
        document / 1024,
        data,
    ]
