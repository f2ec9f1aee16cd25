"""Everything there is as one download: rows a second, and the memory of the server meanwhile.

Beside it: PyArrow alone, which reads the same files and writes the same format to nowhere.
"""

import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.dataset as ds

from bench.home import folder, settled
from bench.lines import Aim, Line, show_lines
from bench.serving import server, watched
from k2.lake import open_lake

ROWS: Final = 20_000_000
_MEMORY_AIM: Final = 1_024
_PIECE: Final = 1 << 20


def run(*, quick: bool = False, rows: int | None = None) -> None:
    """Download all trades of settled tables, as Arrow and as CSV."""
    with folder("export") as home:
        count = rows or (100_000 if quick else ROWS)
        settled(home, count)
        show_lines(f"Download of {count:,} trades", list(_lines(home, count)))


def _lines(home: Path, count: int) -> Iterator[Line]:
    with server(home) as (url, process):
        for name in ("arrow", "csv"):
            with watched(process) as most:
                began = time.perf_counter()
                request = f"{url}/v1/export/trades?format={name}"
                with urllib.request.urlopen(request, timeout=60) as response:
                    got, size = _arrow(response) if name == "arrow" else _csv(response)
                took = time.perf_counter() - began
            assert got == count, f"{got:,} rows came of {count:,}"
            alone = count / _alone(home, name)
            yield Line(
                f"{name}, {size / 2**20:,.0f} MiB",
                count / took,
                unit="rows/s",
                beside=("PyArrow alone, in no order", alone),
            )
            aim = Aim("figure", most=_MEMORY_AIM)
            yield Line(f"{name}: memory of the server", most[0] / 2**20, unit="MiB", aims=(aim,))


class _Counted:
    """A file that counts what is read from it."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.size = file, 0

    def read(self, size: int = -1) -> bytes:
        got = self._file.read(size)
        self.size += len(got)
        return got


def _arrow(file: IO[bytes]) -> tuple[int, int]:
    """Rows and bytes."""
    counted = _Counted(file)
    with pa.ipc.open_stream(pa.PythonFile(counted, "r")) as stream:
        return sum(batch.num_rows for batch in stream), counted.size


def _csv(file: IO[bytes]) -> tuple[int, int]:
    lines = size = 0
    while piece := file.read(_PIECE):
        lines += piece.count(b"\n")
        size += len(piece)
    return lines - 1, size


def _alone(home: Path, name: str) -> float:
    """Seconds that PyArrow takes for the same files."""
    lake = open_lake(home / "lake")
    paths = [file.path for file in lake.table("trades").snapshot().files.select()]
    lake.close()
    began = time.perf_counter()
    scan = ds.dataset(paths, format="parquet").scanner(batch_readahead=2, fragment_readahead=1)
    with pa.OSFile("/dev/null", "wb") as sink:
        schema = scan.projected_schema
        writer = (
            pa.ipc.new_stream(sink, schema)
            if name == "arrow"
            else pyarrow.csv.CSVWriter(sink, schema)
        )
        with writer:
            for batch in scan.to_batches():
                writer.write_batch(batch)
    return time.perf_counter() - began
