"""`k2 load --direct` beside `k2 load`: the same files, trades a second into the tables."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc_csv

from bench.home import folder
from bench.report import show

ROWS, QUICK_ROWS = 5_000_000, 20_000
FILES: Final = 5
"""A day each, as archives of a venue have them."""
DAY_US: Final = 86_400_000_000
START: Final = 1_767_571_200_000_000
"""2026-01-05T00:00:00Z."""


def run(*, quick: bool = False) -> None:
    """Print both, and what they leave on the disk."""
    rows = QUICK_ROWS if quick else ROWS
    with folder("direct") as home:
        files = [_archive(home, day, rows // FILES) for day in range(FILES)]
        figures = []
        for name, more in (("k2 load", []), ("k2 load --direct", ["--direct"])):
            seconds, size = _load(home / name.rpartition(" ")[2], files, more)
            figures.append([name, seconds, f"{rows / seconds:,.0f}", size / rows])
    show(
        f"{rows:,} trades of {FILES} days into the tables",
        ["", "seconds", "records/s", "bytes a record on the disk"],
        figures,
    )


def _archive(home: Path, day: int, rows: int) -> Path:
    """Trades of one symbol in a day, in the columns of data.binance.vision."""
    chance = np.random.default_rng(day)
    ids = np.arange(rows) + day * rows + 5_100_000_000
    times = START + day * DAY_US + np.sort(chance.integers(0, DAY_US, rows))
    prices = 91_250 + np.cumsum(chance.normal(0, 0.01, rows)).round(2)
    quantities = chance.integers(1, 9_999, rows) / 10_000
    is_maker = chance.random(rows) < 0.5
    columns = [ids, prices.round(2), quantities, quantities, times, is_maker, np.ones(rows, bool)]
    table = pa.table(dict(zip("abcdefg", columns, strict=True)))
    path = home / f"BTCUSDT-trades-2026-01-{5 + day:02}.csv"
    pc_csv.write_csv(table, path, pc_csv.WriteOptions(include_header=False))
    return path


def _load(home: Path, files: Sequence[Path], more: Sequence[str]) -> tuple[float, int]:
    began = time.monotonic()
    words = ["--home", home, "load", *files, "--kind", "trades", "--mapping", "binance", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "k2", *map(str, words), *more],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - began
    counts = json.loads(done.stdout)
    assert counts["committed"] == counts["read"] > 0, counts
    return seconds, sum(path.stat().st_size for path in home.rglob("*") if path.is_file())
