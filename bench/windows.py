"""Memory of what duplicates and gaps are told by: 10,000 symbols, an hour and a day, filled by a
generator.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from bench.report import show
from k2.ingest.hashed import HashedIds, hashes_of_texts
from k2.ingest.holes import ALL_HOLES, excess, without
from k2.ingest.marks import Marks, Name
from k2.ingest.sequence import MOST_HOLES, Numbered, State, Stream, bounded, track

SYMBOLS: Final = 10_000
MISSING: Final = 100_000
"""Of so many records one never comes."""
_BATCH: Final = 50_000
_MIB: Final = 2**20

Filled = tuple[float, str]
"""Seconds that the work itself took, and a word on what was made."""
Fill = Callable[[int, list[object]], Filled]
"""Fills a window of that size, and puts what it made into the list."""


def run(*, quick: bool = False) -> None:
    """Print the memory of each window, and what a record costs in it."""
    spans = [(10_000, 1), (50_000, 1), (10_000, 24), (50_000, 24)]
    rows: list[list[object]] = []
    for rate, hours in spans:
        records = rate * hours * 3600
        holes = records // MISSING
        rows.append(_row(f"{rate:,}/s, {hours} h: numbers that count", _streams, holes, records))
    worst = 30 * SYMBOLS if quick else MOST_HOLES * SYMBOLS
    title = f"worst case: {worst:,} holes (at most {ALL_HOLES:,} are held)"
    rows.append(_row(title, _streams, worst, worst))
    rows.append(_row("high-water marks of all symbols", _marks, SYMBOLS, SYMBOLS))
    for rate, hours in spans[: 1 if quick else 2]:
        records = (rate // 100 if quick else rate) * hours * 3600
        rows.append(_row(f"{rate:,}/s, {hours} h: UUIDs, hashed", _hashes, records, records))
    show(
        f"Windows of duplicates and gaps, {SYMBOLS:,} symbols; 1 record of {MISSING:,} is missing. "
        "UUIDs of 24 h take 24 times the disk of 1 h (not filled here), and no more memory",
        ["window", "memory, MiB", "what", "ns a record"],
        rows,
    )


def _row(name: str, fill: Fill, size: int, records: int) -> list[object]:
    """In a process of its own, so that nothing else counts."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        memory, seconds, what = pool.apply(_measured, (fill, size))
    counted = fill is not _streams
    return [name, memory / _MIB, what, seconds / records * 1e9 if counted else "-"]


def _measured(fill: Fill, size: int) -> tuple[int, float, str]:
    before = _private()
    kept: list[object] = []
    seconds, what = fill(size, kept)
    return _private() - before, seconds, what


def _private() -> int:
    """Bytes that this process alone holds and that no file backs."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:"))


def _streams(holes: int, kept: list[object]) -> Filled:
    """The state after so many holes: of what lies between two of them only the ends matter."""
    streams: list[Stream] = [("venue", f"SYM{n}", "") for n in range(SYMBOLS)]
    states: dict[Stream, State] = {}
    began = time.perf_counter()
    for turn in range(holes // SYMBOLS + 2):
        left = min(SYMBOLS, holes + SYMBOLS - turn * SYMBOLS)
        if left <= 0:
            break
        column = np.full(left, turn, np.int64)
        rows = Numbered(
            streams[:left],
            np.arange(left, dtype=np.int32),
            column * 2 + 10**9,
            column * 10**6 + 10**15,
            column * 10**6 + 10**15,
            column % 8,
            column + 10**9,
        )
        states |= {stream: bounded(s) for stream, s in track(states, rows).changed.items()}
        # As where the ledger has all of them.
        gone = excess(states, ALL_HOLES, lambda hole: True, lambda stream, hole: True)
        states |= without(states, gone)
    seconds = time.perf_counter() - began
    kept.append(states)
    found = sum(len(state.holes) for state in states.values())
    return seconds, f"{found:,} holes"


def _marks(symbols: int, kept: list[object]) -> Filled:
    began = time.perf_counter()
    numbers: dict[Name, int] = {("id", "venue", f"SYM{n}", ""): n for n in range(symbols)}
    seconds = time.perf_counter() - began
    kept.append(Marks(numbers, HashedIds(Path())))
    return seconds, f"{symbols:,} marks"


def _hashes(records: int, kept: list[object]) -> Filled:
    """Ids are looked for and added a batch at a time, and kept as a writer keeps them."""
    chance = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        ids = HashedIds(Path(folder))
        seconds = 0.0
        for number in range(0, records, _BATCH):
            texts = pa.array(_uuids(chance, min(_BATCH, records - number)))
            began = time.perf_counter()
            hashes = hashes_of_texts(texts)
            ids.add(hashes[~ids.may_hold(hashes)])
            if number // _BATCH % 10 == 9:
                ids.keep()
                _clear(Path(folder), ids)
            seconds += time.perf_counter() - began
        held = sum(ids.keep().values())
        kept.append(ids)
    return seconds, f"{held:,} ids, {held * 8 // _MIB:,} MiB on disk"


def _uuids(chance: np.random.Generator, count: int) -> list[str]:
    digits = chance.bytes(16 * count).hex()
    return [digits[at : at + 32] for at in range(0, 32 * count, 32)]


def _clear(folder: Path, ids: HashedIds) -> None:
    named = ids.keep().keys()
    for path in folder.glob("*.npy"):
        if path.name not in named:
            path.unlink()
