"""Compaction of a day beside sorting the same rows in memory and writing them as Parquet alone."""

import resource
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.home import folder
from bench.market import DAYS, rows
from bench.report import show
from k2.lake import (
    BUCKETS,
    Commit,
    Lake,
    TopicOffsets,
    bucket,
    definition,
    maintain,
    open_lake,
    sort_rows,
)
from k2.lake.files import write_parquet
from k2.model import Exchange

ROWS, QUICK_ROWS = 4_000_000, 200_000
COMMITS = 400


def run(*, quick: bool = False) -> None:
    """Print rows a second of both and their ratio; files, bytes a trade, and memory."""
    count = QUICK_ROWS if quick else ROWS
    commits = 40 if quick else COMMITS
    day, made = next(iter(rows("trades", count * len(DAYS))))
    with folder("maintain") as home:
        over = datetime(2026, 1, 20, tzinfo=UTC)
        lake = open_lake(home / "lake", clock=lambda: over)
        _fill(lake, made, commits)
        before = lake.table("trades").snapshot().files
        memory = _peak()
        began = time.perf_counter()
        done = maintain(lake, "trades")
        ours = time.perf_counter() - began
        grown = _peak() - memory
        began = time.perf_counter()
        _alone(home, made, lake)
        alone = time.perf_counter() - began
        lake.close()
    show(
        f"Compaction of {count:,} trades of {day} from {commits} commits",
        ["", "rows/s", "files", "bytes a trade"],
        [
            ["as committed", "", len(before), before.bytes / count],
            ["k2 maintain, checked", count / ours, done.files, done.bytes / count],
            ["sort + Parquet alone, in memory before", count / alone, BUCKETS, ""],
            ["ratio", alone / ours, "", ""],
            ["memory that it took, MiB", grown / 2**20, "", ""],
        ],
    )


def _fill(lake: Lake, made: pa.Table, commits: int) -> None:
    table = lake.table("trades")
    per = made.num_rows // commits
    exchange = Exchange("bench", "crypto", "UTC")
    for number in range(commits):
        part = sort_rows(made.slice(number * per, per).combine_chunks())
        start = table.snapshot().offsets
        end = {"bench": TopicOffsets("bench", {0: (number + 1) * per})}
        file = table.write(part, DAYS[0])
        table.commit(Commit((file,), start, end, exchanges=(exchange,)))
        if number % 50 == 49:
            lake.absorb("trades")


def _alone(home: Path, made: pa.Table, lake: Lake) -> None:
    """Sort by bucket, symbol and time, and write a file for each bucket, synced."""
    ids = lake.table("trades").snapshot().field_ids
    symbols = made["symbol"].combine_chunks()
    numbers = np.array([bucket(name) for name in symbols.dictionary.to_pylist()])
    mine = numbers[symbols.indices.to_numpy()]
    for number in np.unique(mine):
        part = sort_rows(made.filter(pa.array(mine == number)).combine_chunks())
        write_parquet(home / f"alone-{number}.parquet", part, definition("trades"), ids)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
