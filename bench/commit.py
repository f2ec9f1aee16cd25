"""A commit beside writing and syncing the same file bare, and the 2,000th beside the 10th."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bench.home import folder
from bench.lines import Aim, Line, show_lines
from bench.market import rows
from bench.report import Timing
from k2.lake import Commit, TopicOffsets, open_lake

COMMITS, QUICK_COMMITS = 2_000, 60
ROWS = 2_000
_FIRST = 20
"""Commits around the tenth."""
_LAST = 100
"""The last ones: as many as a table keeps snapshots, so that every kind of commit is among them."""


def run(*, quick: bool = False) -> None:
    """Print p50 and p99 of commits of 2,000 rows: early, late, and the file bare."""
    show_lines(f"Commits of {ROWS:,} rows, ms", measure(quick=quick))


def measure(*, quick: bool) -> list[Line]:
    """Lines of the bare file, of the first commits and of the last ones."""
    count = QUICK_COMMITS if quick else COMMITS
    day, made = next(iter(rows("trades", ROWS * 5)))
    bare, commits = [], []
    with folder("commit") as home:
        lake = open_lake(home / "lake")
        table = lake.table("trades")
        for number in range(count):
            began = time.perf_counter()
            _write_bare(home / f"{number}.parquet", made)
            bare.append(time.perf_counter() - began)
            snapshot = table.snapshot()
            began = time.perf_counter()
            file = table.write(made, day)
            end = {"bench": TopicOffsets("bench", {0: (number + 1) * ROWS})}
            table.commit(Commit((file,), snapshot.offsets, end))
            commits.append(time.perf_counter() - began)
            if number % 50 == 49:
                lake.absorb("trades")
        lake.close()
    last = min(_LAST, count // 3)
    plain, early, late = map(Timing.of, (bare, commits[:_FIRST], commits[-last:]))
    first = f"1 to {_FIRST}"
    return [
        Line.of("the file bare, synced", plain),
        Line.of(f"commits {first}", early, beside=("bare file", plain)),
        Line.of(
            f"commits {count - last + 1:,} to {count:,}",
            late,
            Aim("ratio", most=1.3),
            beside=(first, early),
        ),
        Line.of("the same", late, Aim("ratio", most=3.0), beside=("bare file", plain)),
    ]


def _write_bare(path: Path, table: pa.Table) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd", compression_level=1)
        file.flush()
        os.fsync(file.fileno())
