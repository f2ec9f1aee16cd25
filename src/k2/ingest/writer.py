"""The writer: from the log into the tables, each record exactly once.

Comes in: messages, from the tables' own offsets on. Goes out: one Iceberg commit a batch, with its
rows, its ledgers' files and the next offsets, by compare and swap. Killed at any moment it goes on
from the tables' offsets and repeats nothing; one that was overtaken cannot commit, and reads again.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from k2.errors import NotFound, Unavailable
from k2.ingest.board import Board
from k2.ingest.degradation import Level
from k2.ingest.drive import Drive
from k2.ingest.line import Line, Step
from k2.ingest.options import WriterOptions
from k2.ingest.outage import Outage
from k2.ingest.overload import Overload
from k2.ingest.retention import trim_committed
from k2.ingest.tracking import Owned
from k2.ingest.watch import Place
from k2.lake import Lake
from k2.log import Log, Membership, Registry
from k2.model import kinds

logger = logging.getLogger(__name__)

_IDLE: Final = timedelta(milliseconds=10)
_RETAIN_EVERY: Final = timedelta(minutes=1)
_WEIGH_EVERY: Final = timedelta(milliseconds=200)


class Writer:
    """Brings every kind of record from the log into the tables. `run` it from one thread.

    With a `membership` it reads the partitions that are its own, else all of them. Others may
    commit meanwhile: what they were faster with is read again and decided again. `on_step` is told
    the name of each step of a commit before it is taken, for tests that stop or kill the writer
    there; `drive` is what moves it.
    """

    def __init__(
        self,
        log: Log,
        registry: Registry,
        lake: Lake,
        options: WriterOptions,
        on_step: Step = lambda step: None,
        membership: Membership | None = None,
        drive: Drive | None = None,
    ) -> None:
        drive = drive or Drive()
        self._clock = drive.clock
        self._log = log
        self._lake = lake
        self._options = options
        self._membership = membership
        outage = Outage()
        self._lines = {
            kind: Line(kind, log, registry, lake, options, on_step, outage, drive)
            for kind in kinds()
        }
        self._retained = -_RETAIN_EVERY.total_seconds()
        self._overload = Overload(options.overload, drive.clock)
        self._weighed = -_WEIGH_EVERY.total_seconds()
        self._board = Board(log, drive.clock)
        self._watch = options.watch

    def run(
        self,
        stop: Callable[[], bool],
        *,
        until_caught_up: bool = False,
        is_whole: bool = False,
    ) -> None:
        """Follow the log until `stop()`, or until all that it holds is committed. `is_whole`: then
        nothing more is to come, and numbers that are missing are told to the gap ledger at once.

        Raises, when caught up, what topics have to wait for: `Unavailable`, or `Broken` where log
        and tables do not belong together. These stop a partition, and no other.
        """
        try:
            while not stop():
                if self.step(stop, until_caught_up=until_caught_up):
                    continue
                if until_caught_up and self.is_done():
                    if is_whole:
                        self._tell_gaps()
                    break
                time.sleep(_IDLE.total_seconds())
            self.finish()
        finally:
            self.close()
        if until_caught_up:
            self._raise_waiting()

    def step(
        self, stop: Callable[[], bool] = lambda: False, *, until_caught_up: bool = False
    ) -> bool:
        """Do what can be done now without waiting; whether there was anything to do. Raises as
        `run` does, of what one step meets.

        For whoever has a loop of its own: then `finish` and `close` are called there as well.
        """
        # Asking a log that is away takes long each time: the lines alone try it again.
        is_away = any(line.is_away for line in self._lines.values())
        if not is_away:
            self._retain()
        if not is_away and not until_caught_up:
            self._weigh()
        return self._step(stop, at_once=until_caught_up)

    def is_done(self) -> bool:
        """Whether all that the log holds is committed, or has to wait."""
        return all(line.is_done() for line in self._lines.values())

    @property
    def level(self) -> Level:
        """How far it has stepped back."""
        return self._overload.level

    @property
    def waiting(self) -> list[Exception]:
        """Why topics or partitions cannot go on."""
        return [error for line in self._lines.values() for error in line.waiting]

    def finish(self) -> None:
        """Commit what is gathered, and bring the ledgers up to date."""
        for line in self._lines.values():
            line.finish()
        self._board.leave()

    def close(self) -> None:
        """End the committing threads."""
        for line in self._lines.values():
            line.close()

    def _step(self, stop: Callable[[], bool], *, at_once: bool) -> bool:
        """A step of each line; whether one of them had anything to do."""
        shedding = self._overload.shedding()
        stopped = self._overload.level is Level.CIRCUIT_BREAK
        moved = False
        for line in self._lines.values():
            if stop():
                break
            owned = self._owned()
            self._overload.own(owned)
            moved |= line.step(owned, at_once=at_once, shedding=shedding, stopped=stopped)
        return moved

    def _weigh(self) -> None:
        """See whether it is too much, and step back or come forward."""
        now = self._clock()
        if now - self._weighed < _WEIGH_EVERY.total_seconds():
            return
        self._weighed = now
        places: dict[Place, tuple[int, int]] = {}
        held = 0
        try:
            for line in self._lines.values():
                places |= line.places()
                held += line.held_bytes
            change = self._overload.look(places, held)
            if change is not None:
                self._watch.stepped(change)
            if change is not None and change.before is Level.CIRCUIT_BREAK:
                shedding = self._overload.shedding()
                assert shedding is not None, "the level below sheds"
                for line in self._lines.values():
                    line.skip(shedding)
            self._board.tell(self._overload.level, change)
        except (Unavailable, NotFound) as error:
            logger.warning("how far the tables are behind cannot be seen now: %s", error)

    def _owned(self) -> Owned | None:
        # Asked before each line's step: one may take long, and asking is the sign of life.
        return None if self._membership is None else self._membership.partitions()

    def _tell_gaps(self) -> None:
        for line in self._lines.values():
            line.tell_gaps()

    def _raise_waiting(self) -> None:
        for error in self.waiting:
            raise error

    def _retain(self) -> None:
        now = self._clock()
        if now - self._retained < _RETAIN_EVERY.total_seconds():
            return
        self._retained = now
        tables = [line.snapshot() for line in self._lines.values()]
        try:
            trim_committed(self._log, tables, self._options.retention, datetime.now(UTC))
        except Unavailable as error:
            logger.warning("nothing is deleted from the log now: %s", error)


def group_of(lake: Lake) -> str:
    """Name of the group in which the writers of this lake divide the log's partitions.

    Another lake that follows the same log has another.
    """
    return f"k2-writers-{lake.table('trades').head().metadata['table-uuid']}"
