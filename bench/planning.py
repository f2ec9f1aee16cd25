"""A table of 10,000 files beside one of 100: choosing those that a question needs, and the first
answer of a reader and of a server that have just begun.
"""

import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from bench.home import folder, k2
from bench.lines import Aim, Line, show_lines
from bench.market import DAYS, EXCHANGE, SYMBOLS, rows
from bench.report import Timing, timed
from k2.cli.machine import free_port, wait_until_ready
from k2.lake import BUCKETS, Bucket, Commit, TopicOffsets, bucket, open_lake, sort_rows
from k2.log import open_log, open_registry
from k2.model import Exchange
from k2.query import Selection, open_reader
from k2.query.state import State

FILES, FEW, QUICK_FILES = 10_000, 100, 320
_ROWS: Final = 64
"""Rows a file at most: how many there are is what is measured."""
_SYMBOL: Final = SYMBOLS[0]


def run(*, quick: bool = False) -> None:
    """Print how much longer it takes with so many files."""
    show_lines("Many files beside few", measure(quick=quick))


def measure(*, quick: bool) -> list[Line]:
    """Lines of planning and of first answers."""
    many, few = (_measure(files, quick) for files in (QUICK_FILES if quick else FILES, FEW))
    beside = f"{few.files:,} files"
    least = Aim("figure", most=0.5)
    return [
        Line.of(f"{what}, {many.files:,} files", took, *aims, beside=(beside, base))
        for what, took, base, aims in (
            (
                "view and choice of files",
                many.planned,
                few.planned,
                (least, Aim("ratio", most=1.5)),
            ),
            ("reader: opened, first answer", many.opened, few.opened, (Aim("figure", most=500),)),
            ("server: from start to ready", many.ready, few.ready, (Aim("figure", most=5_000),)),
            ("server: first answer once ready", many.served, few.served, (Aim("p99", most=300),)),
        )
    ]


@dataclass(frozen=True)
class _Measured:
    """What was timed over one table."""

    files: int
    planned: Timing
    opened: Timing
    ready: Timing
    served: Timing


def _measure(files: int, quick: bool) -> _Measured:
    times = 1 if quick else 7
    with folder("planning") as home:
        _fill(home, files)
        with closing(State(home, clock=lambda: datetime.now(UTC))) as state:
            held = len(state.lake.table("trades").snapshot().files)
            noon = datetime(DAYS[0].year, DAYS[0].month, DAYS[0].day, 12, tzinfo=UTC)
            hour = noon, noon + timedelta(hours=1)
            planned = timed(
                lambda: state.view("trades").select((_SYMBOL,), times=hour),
                seconds=0.3 if quick else 2.0,
            )
        opened = [_opened(home) for _ in range(times)]
        served = [_served(home) for _ in range(times)]
    ready, first = zip(*served, strict=True)
    return _Measured(held, planned, Timing.of(opened), Timing.of(ready), Timing.of(first))


def _opened(home: Path) -> float:
    """Seconds in a process that has imported K2 and done nothing else."""
    command = [sys.executable, "-m", "bench.planning", str(home)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _first_answer(home: Path) -> float:
    began = time.perf_counter()
    with open_reader(home) as reader:
        found = reader.records("trades", Selection((_SYMBOL,)), last=100)
        took = time.perf_counter() - began
    assert found.table.num_rows == 100
    return took


def _served(home: Path) -> tuple[float, float]:
    """Seconds until a server is ready, and of its first answer then."""
    port = free_port("127.0.0.1", 8642)
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    with k2(home, "serve", "--port", str(port)):
        wait_until_ready(url, threading.Event().wait)
        ready = time.perf_counter()
        urllib.request.urlopen(f"{url}/v1/trades?symbol={_SYMBOL}&last=100", timeout=60).read()
        return ready - began, time.perf_counter() - ready


def _fill(home: Path, files: int) -> None:
    """Trades of days in a row, settled in a file a bucket; the last day is the market's first."""
    open_log(f"sqlite:{home}/log.db").close()
    open_registry(f"embedded:{home}/registry.db").close()
    _, made = next(iter(rows("trades", 5 * 100_000)))
    parts = _parts(made)
    topic, exchange = f"market.crypto.trades.{EXCHANGE}", Exchange(EXCHANGE, "crypto", "UTC")
    with closing(open_lake(home / "lake")) as lake:
        table = lake.table("trades")
        reached, left = 0, files
        days = -(-files // len(parts))
        for number in range(days):
            of_day = []
            for bucket_, part in parts[:left]:
                moved = _moved(part, number - days + 1, reached)
                reached += part.num_rows
                of_day.append(table.write(moved, moved["exchange_date"][0].as_py(), bucket=bucket_))
            start = table.snapshot().offsets
            end = {topic: TopicOffsets("bench", {0: reached})}
            table.commit(Commit(tuple(of_day), start, end, exchanges=(exchange,)))
            left -= len(parts)
            if number % 50 == 49:
                lake.absorb("trades")
        lake.absorb("trades")
        # As maintenance does each time: a start reads one file in place of all manifests.
        table.keep_index()


def _parts(made: pa.Table) -> list[tuple[Bucket, pa.Table]]:
    """A few rows of each bucket, sorted as settled files are."""
    symbols = made["symbol"].combine_chunks()
    numbers = np.array([bucket(name) for name in symbols.dictionary.to_pylist()])
    mine = numbers[symbols.indices.to_numpy()]
    return [
        (Bucket(n, BUCKETS), sort_rows(made.take(pa.array(np.flatnonzero(mine == n)[:_ROWS]))))
        for n in np.unique(mine).tolist()
    ]


def _moved(part: pa.Table, days: int, offset: int) -> pa.Table:
    """The same rows so many days later, with places in the log and numbers of their own."""
    count = part.num_rows
    places = pa.array(np.arange(offset, offset + count))
    day = DAYS[0] + timedelta(days=days)
    moved = {
        "exchange_date": pa.array([day] * count),
        "log_offset": places,
        "source_sequence": places,
        "trade_id": places.cast(pa.string()),
    }
    for name in ("timestamp", "ingestion_timestamp"):
        later = part[name].cast(pa.int64()).to_numpy() + days * 86_400_000_000
        moved[name] = pa.array(later).cast(pa.timestamp("us", "UTC"))
    for name, values in moved.items():
        at = part.schema.get_field_index(name)
        part = part.set_column(at, part.schema.field(name), values)
    return part


if __name__ == "__main__":
    sys.stdout.write(f"{_first_answer(Path(sys.argv[1]))}")
