"""A home for journeys: log, registry and lake in one folder, and processes that work on it.

The processes fork from a server that has everything imported: two hundred of them are quick.
"""

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from k2.errors import Unavailable
from k2.ingest import CommitLimits, Writer, WriterOptions
from k2.lake import Lake, maintain, open_lake
from k2.lake import compact as compacting
from k2.lake.catalog import Catalog
from k2.log import Log, Registry, open_log, open_registry

SKEW: Final = timedelta(minutes=5)
STEPS: Final = ("files", "commit", "before swap", "after swap", "answer")
AFTER: Final = timedelta(seconds=10)
"""After which files that nothing needs are removed: readers here take far less."""
OVERTAKEN: Final = "overtaken"
"""File that gets a line whenever a writer finds that another was faster, and reads again."""

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["tests.journeys.home", "k2.ingest", "pyarrow.dataset", "k2.feeds.simulator"]
)


@dataclass(frozen=True)
class Home:
    """One folder's log, registry and lake, open."""

    folder: Path
    log: Log
    registry: Registry
    lake: Lake

    def writer(self, options: WriterOptions | None = None) -> Writer:
        return Writer(self.log, self.registry, self.lake, options or WriterOptions(skew=SKEW))

    def catch_up(self) -> None:
        self.writer().run(lambda: False, until_caught_up=True)


@contextmanager
def open_home(folder: Path, log_url: str | None = None) -> Iterator[Home]:
    """Open them, all in this folder but for a log that is elsewhere."""
    log = open_log(log_url or f"sqlite:{folder / 'log.db'}")
    registry = open_registry(f"embedded:{folder / 'registry.db'}")
    lake = open_lake(folder / "lake")
    try:
        yield Home(folder, log, registry, lake)
    finally:
        lake.close()
        registry.close()
        log.close()


def ledger(home: Home, name: str) -> list[str]:
    """Paths of a ledger's files, its outbox included."""
    return [file.path for file in home.lake.ledger_files(name)]


@dataclass(frozen=True)
class Blow:
    """What befalls a writer: at the `nth` time that it takes `step`, this signal to itself.

    None: the step fails there, as if the catalog had not answered.
    """

    step: str
    nth: int
    signal: signal.Signals | None


def start_writer(
    folder: Path, blow: Blow | None, *, until_caught_up: bool, log_url: str | None = None
) -> BaseProcess:
    """A writer in a process of its own, that commits about twenty times a second.

    One that does not end once caught up shares the work with others, until SIGTERM. It ends with 3
    where it cannot reach the log when it starts.
    """
    arguments = (folder, blow, until_caught_up, log_url)
    process = processes.Process(target=_write, args=arguments, daemon=True)
    process.start()
    return process


def _keep_maintaining(folder: Path) -> None:
    compacting.SMALL_DAY = 2_000  # type: ignore[misc]
    compacting.SETTLE_ROWS = 20_000  # type: ignore[misc]
    compacting.MERGE_AT = 4  # type: ignore[misc]
    lake = open_lake(folder / "lake")
    while True:
        for name in lake.tables():
            maintain(lake, name, after=AFTER)
        time.sleep(0.05)


def start_maintenance(folder: Path) -> BaseProcess:
    """What keeps the tables' files few, all the time, in a process of its own."""
    process = processes.Process(target=_keep_maintaining, args=(folder,), daemon=True)
    process.start()
    return process


def calm(folder: Path, pid: int | None) -> Path:
    """Once this file is there, the process is not struck any more."""
    return folder / f"calm-{pid}"


def overtaken(folder: Path) -> int:
    """How often a writer found that another had been faster."""
    file = folder / OVERTAKEN
    return len(file.read_text().splitlines()) if file.exists() else 0


def wait_until_stopped(process: BaseProcess) -> None:
    """Return once the process is stopped by SIGSTOP, or has ended."""
    while process.is_alive():
        try:
            state = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "T":
            return
        time.sleep(0.005)


def _write(folder: Path, blow: Blow | None, until_caught_up: bool, log_url: str | None) -> None:
    taken = dict.fromkeys(STEPS, 0)

    def step(name: str) -> None:
        taken[name] += 1
        due = blow is not None and (name, taken[name]) == (blow.step, blow.nth)
        if blow is not None and due and not calm(folder, os.getpid()).exists():
            if blow.signal is None:
                raise Unavailable("the catalog does not answer")
            os.kill(os.getpid(), blow.signal)
            # The signal may reach another thread first: this one must not go on meanwhile.
            time.sleep(0.1)

    swap = Catalog.swap

    def swap_in_steps(*args: object) -> bool:
        step("before swap")
        swapped = swap(*args)  # type: ignore[arg-type]
        step("after swap")
        return swapped

    Catalog.swap = swap_in_steps  # type: ignore[method-assign,assignment]
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: ended.append(number))
    warned = logging.FileHandler(folder / OVERTAKEN)
    warned.addFilter(lambda record: "reading again" in record.getMessage())
    logging.getLogger("k2.ingest").addHandler(warned)
    limits = CommitLimits(rows=2_000, interval=timedelta(milliseconds=50))
    options = WriterOptions(limits=limits, skew=SKEW)
    with open_home(folder, log_url) as home:
        member = None if until_caught_up else home.log.join("writers")
        writer = Writer(
            home.log, home.registry, home.lake, options, on_step=step, membership=member
        )
        try:
            writer.run(lambda: bool(ended), until_caught_up=until_caught_up)
        except Unavailable:
            sys.exit(3)
        finally:
            if member is not None:
                member.leave()


def now() -> datetime:
    return datetime.now(UTC)
