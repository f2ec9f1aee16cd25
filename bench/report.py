"""How a benchmark shows its figures: one table, and the machine that they were seen on; and what it
sees of processes and stores from outside.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

console = Console(width=120)


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> "Timing":
        """Of runs that took so long each."""
        return cls(*(float(np.percentile(seconds, p)) for p in (50, 99)))


def timed(run: Callable[[], object], *, at_least: int = 15, seconds: float = 3.0) -> Timing:
    """Run once to warm up, then `at_least` times or for `seconds`, whichever is later reached."""
    run()
    took: list[float] = []
    began = time.perf_counter()
    while len(took) < at_least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
        if len(took) >= 500:
            break
    return Timing.of(took)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print one table."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(f"{v:,.3g}" if isinstance(v, float) else str(v) for v in row))
    console.print(table)


def machine() -> str:
    """Cores, memory and versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}"
    )


class Parts:
    """How long each part of a run takes: a part ends where the next one begins."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """The part of this name ends now; parts of the same name are one."""
        now = time.monotonic()
        self._seconds[name] = self._seconds.get(name, 0.0) + now - self._at
        self._at = now

    def __iter__(self) -> Iterator[tuple[str, float]]:
        return iter(self._seconds.items())


def own_memory(pid: int) -> int:
    """Bytes that a process has in memory now, without files that it maps; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


def audited(home: Path, environment: Mapping[str, str]) -> str:
    """What `k2 audit` says of a home whose stores `environment` names."""
    command = [sys.executable, "-m", "k2", "--home", str(home), "audit", "--json"]
    others = {name: value for name, value in os.environ.items() if not name.startswith("K2_")}
    done = subprocess.run(command, capture_output=True, check=False, env={**others, **environment})
    found = json.loads(done.stdout)
    fates = ("committed", "duplicate", "rejected", "shed", "lost", "in_flight")
    totals = {fate: sum(of[fate] for of in found["partitions"]) for fate in fates}
    counted = ", ".join(f"{count:,} {fate}" for fate, count in totals.items() if count)
    return f"{'clean' if found['ok'] else 'WRONG'}: {counted}"
