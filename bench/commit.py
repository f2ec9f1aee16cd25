"""A commit beside writing and syncing the same file bare."""

import os
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.home import folder
from bench.market import rows
from bench.report import show
from k2.lake import Commit, TopicOffsets, open_lake

COMMITS = 1000
ROWS = 2_000


def run(*, quick: bool = False) -> None:
    """Print p50 and p99 of a thousand commits of 2,000 rows: early, late, and the file bare."""
    count = 60 if quick else COMMITS
    day, made = next(iter(rows("trades", ROWS * 5)))
    bare, commits = [], []
    with folder("commit") as home:
        lake = open_lake(home / "lake")
        table = lake.table("trades")
        for number in range(count):
            began = time.perf_counter()
            _write_bare(home / f"{number}.parquet", made)
            bare.append((time.perf_counter() - began) * 1000)
            snapshot = table.snapshot()
            began = time.perf_counter()
            file = table.write(made, day)
            end = {"bench": TopicOffsets("bench", {0: (number + 1) * ROWS})}
            table.commit(Commit((file,), snapshot.offsets, end))
            commits.append((time.perf_counter() - began) * 1000)
            if number % 50 == 49:
                lake.absorb("trades")
        lake.close()
    tenth = max(count // 10, 1)
    figures: list[list[object]] = [
        [name, float(np.percentile(of, 50)), float(np.percentile(of, 99))]
        for name, of in (
            ("the file bare, synced", bare),
            (f"commits 1 to {tenth}", commits[:tenth]),
            (f"commits {count - tenth + 1} to {count}", commits[-tenth:]),
        )
    ]
    ratio = float(np.percentile(commits[-tenth:], 50)) / float(np.percentile(bare, 50))
    figures.append(["late commit over bare file", ratio, ""])
    show(f"Commits of {ROWS:,} rows", ["", "p50 ms", "p99 ms"], figures)


def _write_bare(path: Path, table: pa.Table) -> None:
    with path.open("wb") as file:
        pq.write_table(table, file, compression="zstd", compression_level=1)
        file.flush()
        os.fsync(file.fileno())
