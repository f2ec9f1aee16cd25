"""Faults at every seam of K2, drawn from a seed: for its developers."""

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from k2.cli.options import output_options
from k2.cli.progress import bar
from k2.cli.show import Output, say
from k2.cli.stores import stop_on_signals

if TYPE_CHECKING:
    from k2.chaos import Played

_RUNS = 20


@click.command("chaos")
@click.option("--seed", type=click.IntRange(0), metavar="N", help="Where to begin (drawn).")
@click.option("--runs", type=click.IntRange(1), metavar="N", help=f"So many ({_RUNS}).")
@click.option("--seconds", type=click.FloatRange(0), metavar="N", help="Or for so long.")
@click.option("--log", default="sqlite", metavar="URL", help="sqlite, or kafka:HOST:PORT.")
@output_options
def command(
    output: Output, seed: int | None, runs: int | None, seconds: float | None, log: str
) -> None:
    """Play short runs of log, writers, tables and server, with some dozen faults in each.

    A run has a home of its own, gone afterwards; on Kafka its topics stay, so take a broker for
    tests. After each run every record must have one fate. The first that has not ends it with 1,
    and the command that makes the same run again.
    """
    from k2.chaos import play_many

    first = random.randrange(10**6) if seed is None else seed
    wanted = runs or (_RUNS if seconds is None else None)
    began = time.monotonic()
    say(f"seeds from {first} on")
    with stop_on_signals() as stop, bar("faults") as shown, _hushed():

        def enough(played: "Played") -> bool:
            passed = time.monotonic() - began
            shown.tell(*_progress(played.runs, wanted, passed, seconds), f"{played.count:,} faults")
            return (
                stop()
                or (wanted is not None and played.runs >= wanted)
                or (seconds is not None and passed >= seconds)
            )

        played = play_many(first, enough, log=log)
    _tell(output, played, time.monotonic() - began)


@contextmanager
def _hushed() -> Iterator[None]:
    """Faults are what was asked for: what writers say of them, only --debug shows."""
    logger = logging.getLogger("k2")
    before = logger.level
    if not logger.isEnabledFor(logging.INFO):
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _progress(
    runs: int, wanted: int | None, passed: float, seconds: float | None
) -> tuple[int, int]:
    return (runs, wanted) if wanted is not None else (int(passed), int(seconds or 0))


def _tell(output: Output, played: "Played", seconds: float) -> None:
    import pyarrow as pa

    from k2.query import Answer

    rows = [(seam, kind, count) for (seam, kind), count in sorted(played.faults.items())]
    table = pa.table(
        {
            "seam": pa.array([seam for seam, _, _ in rows], pa.string()),
            "fault": pa.array([kind for _, kind, _ in rows], pa.string()),
            "struck": pa.array([count for _, _, count in rows], pa.int64()),
        }
    )
    output.write(Answer(table, {"runs": played.runs, "faults": played.count}))
    say(
        f"{played.count:,} faults in {played.runs:,} runs and {seconds:,.0f} s: "
        "every record has one fate"
    )
