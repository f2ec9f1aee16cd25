"""How a benchmark shows its figures: one table, and the machine that they were seen on."""

import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
