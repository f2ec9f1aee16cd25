"""One writer as a process of its own: its log, registry, lake and clock, with faults at each seam.

It is moved by hand. Killed, it leaves on disk what it had written, and nothing else.
"""

import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from k2.chaos.faults import Killed, Seam, Tally
from k2.chaos.journal import Journal
from k2.chaos.ports import FaultyCatalog, FaultyLog, FaultyRegistry
from k2.chaos.turning import Clock, Lazy
from k2.ingest import Drive, Level, Writer, WriterOptions
from k2.lake import Lake
from k2.log import Log, Registry

DISK_FULL: Final = "disk full"
KILLED: Final = "killed"
OVERTAKEN: Final = "frozen in a commit"
STEPS: Final = ("files", "commit", "answer")


@dataclass(frozen=True)
class World:
    """What all processes of a run share. `unique` gives ids, `keep_snapshots` is the lakes'."""

    folder: Path
    log: Log
    registry: Registry
    journal: Journal
    clock: Clock
    tally: Tally
    unique: Callable[[], UUID]
    keep_snapshots: int


class Seams:
    """The seams of one process."""

    def __init__(self, tally: Tally) -> None:
        self.log = Seam("log", tally)
        self.registry = Seam("registry", tally)
        self.catalog = Seam("catalog", tally)
        self.files = Seam("object files", tally)
        self.writer = Seam("writer", tally)
        self.feed = Seam("feed", tally)

    def calm(self) -> None:
        """Have nothing more strike here."""
        for seam in vars(self).values():
            seam.calm()


class Sharing:
    """`k2.log.Membership` of writer `rank` of `count`; `turn` is moved to give each other
    partitions.
    """

    def __init__(self, log: Log, rank: int, count: int) -> None:
        self.turn = 0
        self._log = log
        self._rank = rank
        self._count = count

    def partitions(self) -> Mapping[str, frozenset[int]]:
        """Every so-manieth partition of each topic."""
        return {
            topic: frozenset(p for p in range(count) if (p + self.turn) % self._count == self._rank)
            for topic, count in self._log.topics().items()
        }

    def leave(self) -> None:
        """Nothing: who is gone is replaced."""


class Process:
    """A writer. `between` is called where another process is to be first.

    Raises `Unavailable` if it cannot start now. `DISK_FULL` strikes at the point of that name of
    its seam `files`, with a room of `room` bytes for each file; `writer` strikes at steps.
    """

    def __init__(
        self,
        world: World,
        options: WriterOptions,
        sharing: Sharing | None,
        between: Callable[[], None],
        seams: Seams,
    ) -> None:
        self.seams = seams
        self.is_alive = True
        self.room = 0
        self._between = between
        self._lazies: list[Lazy] = []
        catalog = FaultyCatalog(world.folder / "lake" / "catalog.db", seams.catalog, between)
        lake = Lake(
            world.folder / "lake", catalog, world.clock.now, world.unique, world.keep_snapshots
        )
        self._lake = lake
        try:
            self._writer = Writer(
                FaultyLog(world.log, seams.log, world.journal.appended),
                FaultyRegistry(world.registry, seams.registry),
                lake,
                options,
                self._step,
                sharing,
                Drive(world.clock.seconds, self._committer),
            )
        except BaseException:
            lake.close()
            raise

    def _committer(self, kind: str) -> Lazy:
        self._lazies.append(Lazy(self._commit))
        return self._lazies[-1]

    def _commit(self, call: Callable[[], Any]) -> Any:
        if self.seams.files.strikes(DISK_FULL):
            with small_files(self.room):
                return call()
        return call()

    def _step(self, name: str) -> None:
        kind = self.seams.writer.strikes(name)
        if kind == KILLED:
            raise Killed
        if kind == OVERTAKEN:
            self._between()

    @property
    def level(self) -> Level:
        """How far it has stepped back."""
        return self._writer.level

    @property
    def waits(self) -> bool:
        """Whether a commit waits to be run."""
        return any(lazy.waits for lazy in self._lazies)

    def step(self) -> bool:
        """One step; whether there was anything to do."""
        return self._writer.step()

    def commit(self) -> None:
        """Run the commits that wait."""
        for lazy in self._lazies:
            lazy.run()

    def is_done(self) -> bool:
        """Whether all is committed."""
        return not self.waits and self._writer.is_done()

    def finish(self) -> None:
        """Commit what is gathered, bring the ledgers up to date."""
        self._writer.finish()

    def drop(self) -> None:
        """What the system does with a process that has ended: its files are closed."""
        self.is_alive = False
        self._lake.close()


@contextmanager
def small_files(room: int) -> Iterator[None]:
    """The kernel lets no file of this process grow beyond `room` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
