"""A home for benchmarks: the log, registry and lake of one temporary folder."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import MappingProxyType

import pyarrow as pa
import pyarrow.compute as pc

from bench.market import DAYS, EXCHANGE, rows
from k2.lake import BUCKETS, Bucket, Commit, TopicOffsets, bucket, open_lake, sort_indices
from k2.log import open_log, open_registry
from k2.model import Exchange


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """A temporary folder, removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=f"k2-bench-{name}-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def settled(
    home: Path, count: int, alter: Callable[[str, pa.Table], pa.Table] = lambda kind, made: made
) -> None:
    """Tables of `count` trades and quotes, each day's as `alter` has it, settled: a file a day and
    bucket, sorted.
    """
    home.mkdir(exist_ok=True)
    open_log(f"sqlite:{home}/log.db").close()
    open_registry(f"embedded:{home}/registry.db").close()
    lake = open_lake(home / "lake")
    for kind in ("trades", "quotes"):
        table = lake.table(kind)
        for day, made in rows(kind, count):
            made = alter(kind, made)
            symbols = made["symbol"].combine_chunks()
            buckets = pa.array([bucket(s) for s in symbols.dictionary.to_pylist()], pa.int32())
            mine = buckets.take(symbols.indices)
            files = []
            for number in sorted(set(buckets.to_pylist())):
                part = made.filter(pc.equal(mine, number)).combine_chunks()
                if part.num_rows:
                    part = part.take(pa.array(sort_indices(part)))
                    files.append(table.write(part, day, bucket=Bucket(number, BUCKETS)))
            start = table.snapshot().offsets
            topic = f"market.crypto.{kind}.{EXCHANGE}"
            end = {topic: TopicOffsets("bench", {0: (DAYS.index(day) + 1) * (count // len(DAYS))})}
            exchange = Exchange(EXCHANGE, "crypto", "UTC")
            table.commit(Commit(tuple(files), start, end, exchanges=(exchange,)))
    lake.close()


def data_files(home: Path, kind: str, day: date | None = None) -> list[str]:
    """The data files of a table of a home, or those of one day of it."""
    data = home / "lake" / "tables" / kind / "data"
    below = data if day is None else data / f"exchange_date={day}"
    return sorted(str(path) for path in below.rglob("*.parquet"))


@contextmanager
def k2(
    home: Path, *words: str, environment: Mapping[str, str] = MappingProxyType({})
) -> Iterator[subprocess.Popen[bytes]]:
    """A command of K2 as a process of its own, ended by SIGINT."""
    others = {k: v for k, v in os.environ.items() if not k.startswith("K2_")}
    # A feed that goes as fast as it can overloads any writer: what is shed is measured elsewhere.
    others["K2_OVERLOAD_LAG"] = "1_000_000_000 2_000_000_000 3_000_000_000 4_000_000_000"
    process = subprocess.Popen(
        [sys.executable, "-m", "k2", "--home", str(home), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**others, **environment},
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
