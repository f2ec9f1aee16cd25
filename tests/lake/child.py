"""What runs in processes of its own, to be raced, stopped and killed."""

from multiprocessing import get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from k2.errors import Conflict
from k2.lake import Commit, Lake, open_lake
from tests.lake.make import DAY, TOPIC, at, rejected, trades

ROWS = 20


def context() -> ForkServerContext:
    """A fork server that has imported everything: a child is there in milliseconds."""
    found = get_context("forkserver")
    found.set_forkserver_preload(["tests.lake.child", "polars"])
    return found


def start(target: Any, *arguments: Any) -> BaseProcess:
    child = context().Process(target=target, args=arguments, daemon=True)
    child.start()
    return child


def commit_once(lake: Lake) -> bool:
    """Commit the next rows and one rejected record behind them; False if another was first."""
    table = lake.table("trades")
    head = table.snapshot().offsets
    first = head[TOPIC].next_offset[0] if head else 0
    file = table.write(trades(ROWS - 1, first_offset=first), DAY)
    outbox = (rejected(lake, first + ROWS - 1),)
    try:
        table.commit(Commit((file,), head, at(first + ROWS), outbox))
    except Conflict:
        return False
    return True


def race(folder: Path, rounds: int, won: Any) -> None:
    """Commit as often as that, and tell how often it succeeded."""
    lake = open_lake(folder)
    won.put(sum(commit_once(lake) for _ in range(rounds)))
    lake.close()


def commit_forever(folder: Path, ready: Any) -> None:
    """Commit and absorb until killed."""
    lake = open_lake(folder, keep_snapshots=5)
    ready.set()
    while True:
        commit_once(lake)
        lake.absorb("trades")
        lake.clean("trades")


def absorb_forever(folder: Path, ready: Any) -> None:
    """Absorb until killed."""
    lake = open_lake(folder)
    ready.set()
    while True:
        lake.absorb("trades")
